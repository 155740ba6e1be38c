#!/usr/bin/env python3
"""Write a random BLIP-2 (OPT) checkpoint of a scale, in Hugging Face's layout:  make_model.py OUT --scale paper

Runs in the peers' Python (torch, transformers). Every parameter is drawn: the library's own initialisation leaves biases at zero and
the vision tower invisible, and an engine that skips a stack should not get the right logits. Matrices have a gain of about one and
norms stand around one, so that activations, and what 8 bits make of them, are of the size that trained models have.
"""
import argparse
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from transformers import Blip2Config, Blip2ForConditionalGeneration

# Stacks are (hidden size, heads, FFN width, blocks).
SCALES = {
    # for a look whether everything works
    "tiny": dict(image=56, patch=14, vision=(48, 3, 96, 3), qformer=(40, 4, 80, 4), text=(64, 4, 128, 3), vocab=320, queries=8),
    # about the teacher of the bundled model
    "demo": dict(image=112, patch=8, vision=(192, 3, 768, 6), qformer=(192, 3, 768, 2), text=(256, 4, 1024, 4), vocab=8192, queries=16),
    # the student of arXiv 2312.05795: 0.3 B parameters
    "paper": dict(image=224, patch=14, vision=(512, 8, 2048, 12), qformer=(512, 8, 2048, 6), text=(1024, 16, 4096, 14), vocab=50272,
                  queries=32),
}


def stack(sizes, ffn_key):
    hidden, heads, ffn, blocks = sizes
    return {"hidden_size": hidden, "num_attention_heads": heads, "num_hidden_layers": blocks, ffn_key: ffn}


def make_config(s):
    vision = stack(s["vision"], "intermediate_size")
    qformer, text = stack(s["qformer"], "intermediate_size"), stack(s["text"], "ffn_dim")
    return Blip2Config(
        vision_config=dict(image_size=s["image"], patch_size=s["patch"], hidden_act="gelu", qkv_bias=True, **vision),
        qformer_config=dict(cross_attention_frequency=2, encoder_hidden_size=vision["hidden_size"], vocab_size=512, **qformer),
        text_config=dict(model_type="opt", word_embed_proj_dim=text["hidden_size"], vocab_size=s["vocab"],
                         max_position_embeddings=512, dropout=0.0, **text),
        num_query_tokens=s["queries"])


def randomise(model, seed):
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name.lower() and name.endswith("weight"):
                p.normal_(1, 0.1, generator=g)
            elif p.dim() == 1:
                p.normal_(0, 0.05, generator=g)
            elif "embed" in name and "patch" not in name or name == "query_tokens":
                p.normal_(0, 0.3, generator=g)
            else:
                p.normal_(0, p[0].numel() ** -0.5, generator=g)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("out")
    ap.add_argument("--scale", choices=SCALES, required=True)
    ap.add_argument("--seed", type=int, default=0)
    a = ap.parse_args()
    model = Blip2ForConditionalGeneration(make_config(SCALES[a.scale])).eval()
    randomise(model, a.seed)
    model.save_pretrained(a.out)
    for name in os.listdir(a.out):
        os.chmod(os.path.join(a.out, name), 0o644)     # the library's 0600 would hide it from a user beside the chroot


if __name__ == "__main__":
    main()
