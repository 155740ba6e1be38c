#!/usr/bin/env python3
"""Time a training step of stock transformers' BLIP-2 in PyTorch eager, for comparison with `winnow-prune bench --train`.

Needs python3-torch and python3-transformers (Debian sid) and an optimised BLAS (libopenblas0-openmp: without it Debian's
torch multiplies f32 matrices at 2 GFLOP/s). The step is the one winnow-prune makes: forward, cross-entropy over the label
tokens, backward, global norm clipping, AdamW; the query embeddings stand in front of the embedded text.

    train_peer.py MODEL_DIR --batch 32 --tokens 24
"""
import argparse
import json
import time

import torch
from transformers import Blip2ForConditionalGeneration


def step(model, optimiser, pixels, ids, labels):
    embeds = model.get_input_embeddings()(ids)
    image = model.get_image_features(pixels, return_dict=True).pooler_output
    hidden = model.language_model.model(inputs_embeds=torch.cat([image, embeds], 1), use_cache=False).last_hidden_state
    # Only the labelled positions go through the head, as in winnow: position t is predicted from t-1.
    keep = (labels != -100).nonzero()
    rows = hidden[keep[:, 0], keep[:, 1] + image.shape[1] - 1]
    loss = torch.nn.functional.cross_entropy(model.language_model.lm_head(rows), labels[keep[:, 0], keep[:, 1]])
    optimiser.zero_grad(set_to_none=False)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    return loss.item()


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("model")
    ap.add_argument("--batch", type=int, default=32)
    ap.add_argument("--tokens", type=int, default=24)
    ap.add_argument("--label-tokens", type=int, default=4)
    ap.add_argument("--runs", type=int, default=10)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--attention", default="eager", choices=["eager", "sdpa"])
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    model = Blip2ForConditionalGeneration.from_pretrained(a.model, attn_implementation=a.attention, dtype=torch.float32).train()
    config = model.config
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05)
    g = torch.Generator().manual_seed(1)
    pixels = torch.randn(a.batch, 3, config.vision_config.image_size, config.vision_config.image_size, generator=g)
    ids = torch.randint(4, config.text_config.vocab_size, (a.batch, a.tokens), generator=g)
    labels = torch.full_like(ids, -100)
    labels[:, -a.label_tokens:] = ids[:, -a.label_tokens:]
    for _ in range(2):
        step(model, optimiser, pixels, ids, labels)
    times = []
    for _ in range(a.runs):
        start = time.perf_counter()
        step(model, optimiser, pixels, ids, labels)
        times.append(time.perf_counter() - start)
    times.sort()
    median = times[len(times) // 2]
    print(json.dumps(dict(peer="pytorch-eager", torch=torch.__version__, attention=a.attention, batch=a.batch, tokens=a.tokens,
                          threads=a.threads, median_step_ms=round(1e3 * median, 1), min_step_ms=round(1e3 * times[0], 1),
                          samples_per_s=round(a.batch / median, 1))))


if __name__ == "__main__":
    main()
