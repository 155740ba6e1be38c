#!/usr/bin/env python3
"""Golden values of tests/compress: the terms of the distillation loss and their gradients, by PyTorch autograd in double.

Needs python3-torch and python3-safetensors (Debian sid). Run it in this directory:

    python3 make_goldens.py golden

distill_CASE.safetensors   logits, teacher [n][R][V]; labels [n] (-1: none); steps [S][3] (label, row, token: the trie's paths);
                           weights [7] (nll, kl, pair, relation, temperature, margin, labelled_share); batch [1];
                           terms [5] (nll, kl, pair, relation, total), gradient [n][R][V]: both times n/batch
hidden_CASE.safetensors    student [rows][width], teacher [rows'][width'], to_row, to_dim where they are not the identity,
                           weight [1]; value [1], gradient [rows][width]
"""
import os
import sys

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

# Paths as (row, token). A verbalizer of each depth from 1 to 4 with common prefixes; two tokens each; one token each.
DEEP = [[(0, 10), (1, 11)],
        [(0, 10), (1, 12), (2, 13)],
        [(0, 20)],
        [(0, 10), (1, 12), (2, 14), (3, 15)],
        [(0, 0), (4, 36)]]
PAIRS = [[(0, 3), (1, 5)], [(0, 699), (2, 512)], [(0, 3), (1, 511)]]
FLAT = [[(0, 7)], [(0, 2)], [(0, 30)]]

# weights: nll, kl, pair, relation, temperature, margin, labelled_share
CASES = {
    "nll": dict(w=(1, 0, 0, 0, 1, 1, 0)),
    "kl": dict(w=(0, 1, 0, 0, 1, 1, 0)),
    "kl_warm": dict(w=(0, 1, 0, 0, 3, 1, 0)),
    "pair": dict(w=(0, 0, 1, 0, 1, 1, 0)),
    "relation": dict(w=(0, 0, 0, 1, 1, 2, 0), n=5),
    "all": dict(w=(1, 0.5, 2, 3, 2, 1.5, 0)),
    # Half of the samples unlabelled; all of them.
    "some_unlabelled": dict(w=(1, 1, 1, 1, 2, 2, 0), labels=[1, -1, 4, -1]),
    "none_labelled": dict(w=(1, 1, 1, 1, 2, 2, 0), labels=[-1, -1, -1, -1]),
    # A micro-batch of three out of eight, with its own share of labels; cold and sharp.
    "micro": dict(w=(1, 1, 1, 1, 0.5, 0.25, 0.75), n=3, labels=[3, -1, -1], batch=8),
    # Logits around +-1e4; a student that is sure and right; one that is the teacher, nearly.
    "huge": dict(w=(1, 1, 1, 1, 2, 2, 0), scale=1e4),
    "sure": dict(w=(1, 1, 1, 1, 1, 1, 0), labels=[0, 1, 2, 3], sure=14),
    "close": dict(w=(0, 1, 1, 1, 2, 1, 0), close=1e-2),
    "one_sample": dict(w=(1, 1, 1, 1, 2, 2, 0), n=1),
    "one_row": dict(w=(1, 1, 1, 1, 2, 2, 0), paths=FLAT, V=31),
    "large_vocabulary": dict(w=(1, 1, 1, 1, 2, 2, 0), paths=PAIRS, n=2, V=700),
}


def scores(logits, paths):
    logp = F.log_softmax(logits, -1)
    return torch.stack([sum(logp[:, r, k] for r, k in p) for p in paths], 1)


def terms_of(logits, teacher, labels, paths, w):
    nll_w, kl_w, pair_w, relation_w, T, M, share = w
    n, L, zero = len(logits), len(paths), logits.new_zeros(())
    s, t = scores(logits, paths), scores(teacher, paths)
    answer = torch.where(labels >= 0, labels, t.argmax(1))
    tokens = torch.tensor([len(p) for p in paths])
    nll = kl = pair = relation = zero
    own = labels >= 0
    if nll_w and own.any():
        each = -s[own].gather(1, labels[own, None])[:, 0] / tokens[labels[own]]
        nll = each.sum() / (share * n) if share else each.mean()
    if kl_w:
        each = []
        for i in range(n):
            rows = [r for r, _ in paths[answer[i]]]
            q, p = F.log_softmax(teacher[i, rows] / T, -1), F.log_softmax(logits[i, rows] / T, -1)
            each.append(F.kl_div(p, q, reduction="none", log_target=True).sum(-1).mean())
        kl = T * T * torch.stack(each).mean()
    if pair_w:
        a, b = torch.triu_indices(L, L, 1)
        u, v = (s[:, a] - s[:, b]) / M, (t[:, a] - t[:, b]) / M
        y = v.sigmoid()
        pair = (F.binary_cross_entropy_with_logits(u, y, reduction="none") -
                F.binary_cross_entropy_with_logits(v, y, reduction="none")).mean()
    if relation_w and n > 1:
        p, h = (s / M).softmax(1), (t / M).softmax(1)
        relation = (p @ p.T - h @ h.T)[~torch.eye(n, dtype=torch.bool)].square().mean()
    total = nll_w * nll + kl_w * kl + pair_w * pair + relation_w * relation
    return torch.stack([nll, kl, pair, relation, total])


def distill_case(c, g):
    paths, n, V = c.get("paths", DEEP), c.get("n", 4), c.get("V", 37)
    R = 1 + max(r for p in paths for r, _ in p)
    rand = lambda: torch.randn(n, R, V, generator=g, dtype=torch.double)
    teacher, logits = 2 * rand(), 2 * rand()
    labels = torch.tensor(c["labels"]) if "labels" in c else torch.randint(len(paths), (n,), generator=g)
    if "scale" in c:
        logits, teacher = c["scale"] * logits / 2, c["scale"] * teacher / 2
        teacher[0] = logits[0] + rand()[0]  # the same far offsets, and differences that matter
        logits[0] -= c["scale"]
    if "sure" in c:
        for i in range(n):
            for r, k in paths[labels[i]]:
                logits[i, r, k] += c["sure"]
    if "close" in c:
        logits = teacher + c["close"] * rand()
    logits, teacher = logits.float(), teacher.float()  # what the C code reads
    x = logits.double().requires_grad_()
    share = n / c.get("batch", n)
    terms = share * terms_of(x, teacher.double(), labels, paths, c["w"])
    terms[4].backward()
    steps = [(l, r, k) for l, p in enumerate(paths) for r, k in p]
    return {"logits": logits, "teacher": teacher, "labels": labels, "steps": torch.tensor(steps),
            "weights": torch.tensor(c["w"], dtype=torch.float), "batch": torch.tensor([c.get("batch", n)]),
            "terms": terms.detach().float(), "gradient": x.grad.float()}


# Student's rows x width in the teacher's; drop: rows that are padding.
HIDDEN = {
    "same": dict(rows=6, width=9, weight=1.0),
    "dims": dict(rows=5, width=7, teacher_width=19, weight=0.25),
    "rows": dict(rows=12, width=8, teacher_rows=30, drop=(0, 5, 6), weight=2.0),
    "rows_and_dims": dict(rows=70, width=5, teacher_rows=90, teacher_width=11, drop=(3, 68, 69), weight=1.0),
}


def hidden_case(c, g):
    rows, width = c["rows"], c["width"]
    teacher_rows, teacher_width = c.get("teacher_rows", rows), c.get("teacher_width", width)
    randn = lambda *s: torch.randn(*s, generator=g)
    student, teacher = randn(rows, width), 3 * randn(teacher_rows, teacher_width) + 1
    out = {"student": student, "teacher": teacher, "weight": torch.tensor([c["weight"]])}
    to_row, to_dim = torch.arange(rows), torch.arange(width)
    if teacher_rows != rows:
        to_row = torch.randperm(teacher_rows, generator=g)[:rows].sort().values
        to_row[list(c["drop"])] = -1
        out["to_row"] = to_row.clone()
    if teacher_width != width:
        to_dim = torch.randperm(teacher_width, generator=g)[:width]
        out["to_dim"] = to_dim.clone()
    x = student.double().requires_grad_()
    seen = to_row >= 0
    target = teacher.double()[to_row[seen]][:, to_dim]
    value = F.mse_loss(x[seen], target) / target.square().mean()
    (c["weight"] * value).backward()
    return {**out, "value": value.detach().float().reshape(1), "gradient": x.grad.float()}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    torch.use_deterministic_algorithms(True)
    out = sys.argv[1]
    os.makedirs(out, exist_ok=True)
    for make, kind, cases in ((distill_case, "distill", CASES), (hidden_case, "hidden", HIDDEN)):
        for seed, (name, case) in enumerate(cases.items()):
            tensors = make(case, torch.Generator().manual_seed(seed))
            save_file(tensors, os.path.join(out, f"{kind}_{name}.safetensors"))
            print(name, [f"{v:.6g}" for v in tensors.get("terms", tensors.get("value"))], f"{tensors['gradient'].abs().max():.3g}")
