#!/usr/bin/env python3
"""Golden values of tests/prune, from PyTorch and from formulas written down independently of the C code.

Needs python3-torch, python3-transformers and python3-safetensors (Debian sid). Run it in this directory:

    python3 make_goldens.py golden

adamw.safetensors    ten steps of torch.optim.AdamW on two parameter groups, with clip_grad_norm_ in front
schedule.json        transformers.get_cosine_schedule_with_warmup (floor 0), and the same rescaled to a floor
metrics.json         accuracy, F1, ECE of random probabilities, counted with plain Python loops
quantile.json        numpy.percentile
"""
import json
import math
import sys

import numpy
import torch
from safetensors.torch import save_file
from transformers import get_cosine_schedule_with_warmup

STEPS = 10
LR, BETAS, EPS, DECAY, CLIP = 3e-3, (0.9, 0.98), 1e-8, 0.05, 1.0


def adamw():
    torch.manual_seed(7)
    decayed = torch.nn.Parameter(torch.randn(33, 17))
    plain = torch.nn.Parameter(torch.randn(41))
    groups = [{"params": [decayed], "weight_decay": DECAY}, {"params": [plain], "weight_decay": 0.0}]
    opt = torch.optim.AdamW(groups, lr=LR, betas=BETAS, eps=EPS)
    out = {"initial": torch.cat([decayed.detach().flatten(), plain.detach()]).clone()}
    grads, weights, norms = [], [], []
    for step in range(STEPS):
        # Sizes from far below the clipping norm to far above it; one gradient is exactly zero for some steps.
        decayed.grad = torch.randn_like(decayed) * (0.001 if step % 3 == 0 else 1.0)
        plain.grad = torch.randn_like(plain) * (0.01 if step % 2 else 5.0)
        plain.grad[3] = 0.0
        grads.append(torch.cat([decayed.grad.flatten(), plain.grad]).clone())
        norms.append(torch.nn.utils.clip_grad_norm_([decayed, plain], CLIP).reshape(1))
        for g in opt.param_groups:
            g["lr"] = LR * (step + 1) / STEPS
        opt.step()
        weights.append(torch.cat([decayed.detach().flatten(), plain.detach()]).clone())
    out["grads"], out["weights"], out["norms"] = torch.stack(grads), torch.stack(weights), torch.cat(norms)
    out["exp_avg"] = torch.cat([opt.state[decayed]["exp_avg"].flatten(), opt.state[plain]["exp_avg"]])
    out["exp_avg_sq"] = torch.cat([opt.state[decayed]["exp_avg_sq"].flatten(), opt.state[plain]["exp_avg_sq"]])
    return out


def schedule():
    """Hugging Face's step k (after k scheduler.step calls) uses factor k/warmup; ours counts the first step as 1: k+1."""
    cases = []
    for peak, floor, warmup, total in [(1e-3, 0.0, 10, 100), (5e-4, 1e-5, 3, 40), (1e-3, 1e-4, 0, 7)]:
        p = torch.nn.Parameter(torch.zeros(1))
        opt = torch.optim.SGD([p], lr=1.0)
        hf = get_cosine_schedule_with_warmup(opt, warmup, total)
        factors = []
        for _ in range(total + 3):
            factors.append(hf.get_last_lr()[0])
            opt.step()
            hf.step()
        rates = []
        for k in range(total + 2):
            if k < warmup:
                rates.append(peak * factors[k + 1] if k + 1 < warmup else peak)
            else:
                rates.append(floor + (peak - floor) * (factors[k] if k < total else 0.0))
        cases.append({"peak": peak, "floor": floor, "warmup": warmup, "total": total, "rates": rates})
    return cases


def metrics():
    cases = []
    for seed, n, c, sharp in [(1, 200, 9, 3.0), (2, 37, 3, 1.0), (3, 1, 2, 1.0), (4, 60, 5, 0.2)]:
        rng = numpy.random.default_rng(seed)
        logits = rng.normal(size=(n, c)) * sharp
        probs = numpy.exp(logits) / numpy.exp(logits).sum(1, keepdims=True)
        probs = probs.astype(numpy.float32)
        # class c-1 never occurs in the third of the cases: undefined recall must be 0 and F1 leave the mean when unseen
        truth = [int(t) for t in rng.integers(0, max(c - (seed % 2), 1), size=n)]
        pred = [max(range(c), key=lambda k: (row[k], -k)) for row in probs.tolist()]
        classes, f1s = [], []
        for k in range(c):
            tp = sum(1 for t, p in zip(truth, pred) if t == k and p == k)
            fp = sum(1 for t, p in zip(truth, pred) if t != k and p == k)
            fn = sum(1 for t, p in zip(truth, pred) if t == k and p != k)
            precision = tp / (tp + fp) if tp + fp else 0.0
            recall = tp / (tp + fn) if tp + fn else 0.0
            f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
            classes.append({"precision": precision, "recall": recall, "f1": f1, "support": tp + fn})
            if tp + fp + fn:
                f1s.append(f1)
        ece = 0.0
        for b in range(15):
            lo, hi = b / 15, (b + 1) / 15
            rows = [i for i in range(n) if lo < float(probs[i][pred[i]]) <= hi]
            if rows:
                conf = sum(float(probs[i][pred[i]]) for i in rows) / len(rows)
                acc = sum(1 for i in rows if pred[i] == truth[i]) / len(rows)
                ece += len(rows) / n * abs(conf - acc)
        cases.append({"num_classes": c, "probs": probs.flatten().tolist(), "truth": truth,
                      "accuracy": sum(1 for t, p in zip(truth, pred) if t == p) / n, "macro_f1": sum(f1s) / len(f1s),
                      "nll": -sum(math.log(float(probs[i][truth[i]])) for i in range(n)) / n, "ece": ece,
                      "classes": classes})
    return cases


def quantile():
    rng = numpy.random.default_rng(5)
    cases = []
    for n in (1, 2, 3, 100, 101):
        v = rng.normal(size=n).round(6)
        cases.append({"values": v.tolist(), "expected": [[q, float(numpy.percentile(v, 100 * q))] for q in (0, 0.5, 0.9, 0.99, 1)]})
    return cases


def main():
    out = sys.argv[1]
    save_file({k: v.contiguous() for k, v in adamw().items()}, f"{out}/adamw.safetensors")
    for name, value in (("schedule", schedule()), ("metrics", metrics()), ("quantile", quantile())):
        with open(f"{out}/{name}.json", "w", encoding="utf-8") as f:
            json.dump(value, f)
            f.write("\n")


if __name__ == "__main__":
    main()
