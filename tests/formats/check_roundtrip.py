#!/usr/bin/env python3
"""Do stock transformers load what winnow writes, and get the same model? (needs python3-transformers, Debian sid)

    python3 check_roundtrip.py make A            # a random tiny BLIP-2, sharded, into A
    formats_roundtrip A B                        # from the build directory: winnow reads A and writes B
    python3 check_roundtrip.py compare A B       # configs equal, every tensor equal, logits equal
"""
import sys

import torch
from transformers import AutoConfig, Blip2Config, Blip2ForConditionalGeneration


def make(path):
    torch.manual_seed(7)
    config = Blip2Config(
        vision_config=dict(hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, image_size=28,
                           layer_norm_eps=3e-5, qkv_bias=True, initializer_range=0.02),
        qformer_config=dict(hidden_size=24, intermediate_size=36, num_hidden_layers=4, num_attention_heads=3,
                            cross_attention_frequency=3),
        text_config=dict(model_type="opt", hidden_size=16, ffn_dim=20, num_hidden_layers=2, num_attention_heads=2,
                         vocab_size=50, max_position_embeddings=30, word_embed_proj_dim=16, pad_token_id=3, bos_token_id=None,
                         eos_token_id=4),
        num_query_tokens=5, image_token_index=49, initializer_range=0.03)
    model = Blip2ForConditionalGeneration(config)
    torch.nn.init.normal_(model.query_tokens)
    model.save_pretrained(path, max_shard_size="20KB")


def logits(model):
    torch.manual_seed(1)
    pixels = torch.randn(2, 3, 28, 28)
    ids = torch.cat([torch.full((2, 5), 49), torch.randint(5, 49, (2, 6))], dim=1)
    with torch.no_grad():
        return model.eval()(pixel_values=pixels, input_ids=ids).logits


def compare(a, b):
    x, y = AutoConfig.from_pretrained(a).to_dict(), AutoConfig.from_pretrained(b).to_dict()
    assert x["vision_config"].pop("initializer_range") == 0.02  # not modelled: the class default is written
    y["vision_config"].pop("initializer_range")
    for d in (x, y):
        for s in (d, d["vision_config"], d["qformer_config"], d["text_config"]):
            for k in ("_name_or_path", "dtype", "transformers_version"):
                s.pop(k, None)
    assert x == y, (x, y)
    m, n = (Blip2ForConditionalGeneration.from_pretrained(p) for p in (a, b))
    s, t = m.state_dict(), n.state_dict()
    assert s.keys() == t.keys()
    for k in s:
        assert torch.equal(s[k], t[k]), k
    assert torch.equal(logits(m), logits(n))
    print("equal:", len(s), "tensors, config and logits")


if __name__ == "__main__":
    make(sys.argv[2]) if sys.argv[1] == "make" else compare(sys.argv[2], sys.argv[3])
