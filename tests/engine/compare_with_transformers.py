#!/usr/bin/env python3
"""Does stock transformers get the logits that winnow gets, from any model directory? (needs torch and transformers)

    python3 compare_with_transformers.py inputs MODEL in.safetensors     # four random images and prompts, left-padded
    winnow-prune forward --model MODEL --in in.safetensors --out out.safetensors
    python3 compare_with_transformers.py compare MODEL in.safetensors out.safetensors

Prints the largest difference beside the largest logit; exit code 1 when it is above 1e-4 of that.
"""
import sys

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, Blip2ForConditionalGeneration

LIMIT = 1e-4


def inputs(model, path):
    config = AutoConfig.from_pretrained(model)
    torch.manual_seed(3)
    size, length = config.vision_config.image_size, 40
    mask = torch.ones(4, length, dtype=torch.int64)
    for i in range(4):
        mask[i, :7 * i] = 0
    save_file({"pixel_values": torch.randn(4, 3, size, size),
               "input_ids": torch.randint(4, config.text_config.vocab_size, (4, length)), "attention_mask": mask}, path)


def compare(model, given, found):
    given, found = load_file(given), load_file(found)
    m = Blip2ForConditionalGeneration.from_pretrained(model, attn_implementation="eager", dtype=torch.float32).eval()
    with torch.no_grad():
        vision = m.vision_model(pixel_values=given["pixel_values"]).last_hidden_state
        queries = m.query_tokens.expand(vision.shape[0], -1, -1)
        qformer = m.qformer(query_embeds=queries, encoder_hidden_states=vision).last_hidden_state
        embedded = torch.cat([m.language_projection(qformer), m.get_input_embeddings()(given["input_ids"])], 1)
        mask = torch.cat([torch.ones(len(embedded), queries.shape[1], dtype=torch.int64), given["attention_mask"]], 1)
        expected = m.language_model(inputs_embeds=embedded, attention_mask=mask).logits
    seen = mask.bool()
    worst = (found["logits"] - expected)[seen].abs().max().item()
    largest = expected[seen].abs().max().item()
    print(f"logits: largest difference {worst:.3g}, largest value {largest:.3g}")
    return worst <= LIMIT * largest


if len(sys.argv) == 4 and sys.argv[1] == "inputs":
    inputs(*sys.argv[2:])
elif len(sys.argv) == 5 and sys.argv[1] == "compare":
    sys.exit(0 if compare(*sys.argv[2:]) else 1)
else:
    sys.exit(__doc__)
