#!/usr/bin/env python3
"""How far transformers' own 16-bit arithmetic is from the goldens (16-bit weights, f32 arithmetic, which winnow equals to 1e-6).

    python3 tests/engine/native_dtypes.py        # needs torch and transformers; prints worst |delta| over worst |reference|
"""
import os

import torch
from safetensors.torch import load_file
from transformers import Blip2ForConditionalGeneration

GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden")

for case, dtype in (("bf16_sharded", torch.bfloat16), ("f16", torch.float16)):
    path = os.path.join(GOLDEN, case)
    model = Blip2ForConditionalGeneration.from_pretrained(path, dtype=dtype).eval()
    given, expected = load_file(os.path.join(path, "in.safetensors")), load_file(os.path.join(path, "out.safetensors"))
    with torch.no_grad():
        vision = model.vision_model(pixel_values=given["pixel_values"].to(dtype)).last_hidden_state
        queries = model.query_tokens.expand(vision.shape[0], -1, -1)
        qformer = model.qformer(query_embeds=queries, encoder_hidden_states=vision).last_hidden_state
        embedded = torch.cat([model.language_projection(qformer.to(dtype)),
                              model.language_model.get_input_embeddings()(given["input_ids"])], 1)
        mask = given.get("attention_mask", torch.ones_like(given["input_ids"]))
        mask = torch.cat([torch.ones(mask.shape[0], queries.shape[1], dtype=mask.dtype), mask], 1)
        logits = model.language_model(inputs_embeds=embedded, attention_mask=mask).logits
    real = mask.bool()
    for name, found, reference in (("vision", vision, expected["vision_last_hidden_state"]),
                                   ("qformer", qformer, expected["qformer_last_hidden_state"]),
                                   ("logits", logits[real], expected["logits"][real])):
        print(case, name, f"{float((found.float() - reference).abs().max() / reference.abs().max()):.1e}")
