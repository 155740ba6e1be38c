#!/usr/bin/env python3
"""Writes tests/formats/golden with the real libraries (needs python3-transformers and python3-safetensors, Debian sid):

    python3 tests/formats/make_goldens.py OUTPUT_DIR

OUTPUT_DIR/
  dtypes.safetensors            every dtype winnow reads, a scalar, an empty tensor, metadata
  conversions.json              SHA-256 of PyTorch's F16 -> F32, F32 -> F16 and F32 -> BF16 over patterns test_tensor.c repeats
  sharded/                      a tiny random BLIP-2 as save_pretrained shards it, and tensors.json: shape and sum of each tensor
  config/NAME.json              config.json files old and new, and NAME.expected.json: what transformers makes of each
"""
import hashlib
import json
import os
import shutil
import sys
import tempfile

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, Blip2Config, Blip2ForConditionalGeneration


def write_dtypes(out):
    t = {
        "f32": torch.tensor([[1.0, -2.5, 3.25], [0.0, 1e-30, 1e30]], dtype=torch.float32),
        "f16": torch.tensor([1.0, -0.5, 65504.0, 6e-8], dtype=torch.float16),
        "bf16": torch.tensor([1.0, -0.5, 3e38], dtype=torch.bfloat16),
        "i64": torch.tensor([-1, 2**40], dtype=torch.int64),
        "i32": torch.tensor([[-7], [8]], dtype=torch.int32),
        "i8": torch.tensor([-128, 127, 0], dtype=torch.int8),
        "u8": torch.tensor([0, 255], dtype=torch.uint8),
        "bool": torch.tensor([True, False, True], dtype=torch.bool),
        "scalar": torch.tensor(42.0, dtype=torch.float32),
        "empty": torch.zeros((3, 0), dtype=torch.float32),
        "名前": torch.tensor([5], dtype=torch.int32),
    }
    save_file(t, os.path.join(out, "dtypes.safetensors"), metadata={"format": "pt", "note": "写"})


def digest(array):
    return "sha256:" + hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def write_conversions(out):
    half = np.arange(65536, dtype=np.uint32).astype(np.uint16)
    wide = torch.from_numpy(half.view(np.int16)).view(torch.float16).to(torch.float32).numpy().view(np.uint32).copy()
    wide[(wide & 0x7FFFFFFF) > 0x7F800000] = 0x7FC00000  # any NaN is a NaN
    # 2^20 bit patterns spread over all floats, then the neighbourhood of every tie between two F16 or BF16 values
    i = np.arange(1 << 20, dtype=np.uint64)
    spread = ((i * 2654435761) & 0xFFFFFFFF).astype(np.uint32)
    ties16 = (wide[:, None].astype(np.uint64) + np.array([0xFFF, 0x1000, 0x1001], dtype=np.uint64)).ravel().astype(np.uint32)
    tiesb = ((np.arange(65536, dtype=np.uint64) << 16)[:, None] + np.array([0x7FFF, 0x8000, 0x8001], dtype=np.uint64)).ravel()
    bits = np.concatenate([spread, ties16, tiesb.astype(np.uint32)])
    x = torch.from_numpy(bits.view(np.float32).copy())
    nan = torch.isnan(x).numpy()
    f16 = x.to(torch.float16).view(torch.int16).numpy().view(np.uint16).copy()
    bf16 = x.to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16).copy()
    f16[nan] = 0x7E00
    bf16[nan] = 0x7FC0
    with open(os.path.join(out, "conversions.json"), "w") as f:
        json.dump({"f16_to_f32": digest(wide), "f32_to_f16": digest(f16), "f32_to_bf16": digest(bf16),
                   "count": int(len(bits))}, f, indent=1)
        f.write("\n")


def tiny_config():
    return Blip2Config(
        vision_config=dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=28),
        qformer_config=dict(hidden_size=12, intermediate_size=20, num_hidden_layers=3, num_attention_heads=3,
                            cross_attention_frequency=2),
        text_config=dict(model_type="opt", hidden_size=8, ffn_dim=16, num_hidden_layers=2, num_attention_heads=2,
                         vocab_size=40, max_position_embeddings=24, word_embed_proj_dim=8),
        num_query_tokens=4, image_token_index=39)


def write_sharded(out):
    torch.manual_seed(0)
    model = Blip2ForConditionalGeneration(tiny_config())
    d = os.path.join(out, "sharded")
    shutil.rmtree(d, ignore_errors=True)
    model.save_pretrained(d, max_shard_size="12KB")
    for name in os.listdir(d):
        if name not in ("config.json", "model.safetensors.index.json") and not name.endswith(".safetensors"):
            os.unlink(os.path.join(d, name))
    stored = json.load(open(os.path.join(d, "model.safetensors.index.json")))["weight_map"]
    state = model.state_dict()
    info = {k: {"shape": list(state[k].shape), "sum": float(state[k].double().sum())} for k in sorted(stored)}
    with open(os.path.join(d, "tensors.json"), "w") as f:
        json.dump(info, f, indent=0, sort_keys=True)
        f.write("\n")


# Keys that files of other transformers versions carry and that change nothing.
OLD = {
    "_commit_hash": None, "initializer_factor": 1.0, "is_encoder_decoder": False, "tie_word_embeddings": False,
    "use_decoder_only_language_model": True, "transformers_version": "4.26.0.dev0", "torch_dtype": "float16",
}


def config_cases():
    tiny = json.loads(tiny_config().to_json_string(use_diff=False))
    saved = json.loads(tiny_config().to_json_string())
    old = json.loads(json.dumps(saved))
    old.update(OLD)
    old["vision_config"].update(dropout=0.0, num_channels=3, projection_dim=512, initializer_factor=1.0, torch_dtype=None,
                                layer_norm_eps=1e-5)
    old["qformer_config"].update(position_embedding_type="absolute", classifier_dropout=None, torch_dtype=None)
    old["text_config"].update(_name_or_path="facebook/opt-2.7b", activation_dropout=0.0, prefix="</s>", torch_dtype="float16",
                              id2label={"0": "LABEL_0", "1": "LABEL_1"})
    del old["image_token_index"]
    return {
        "minimal": {"model_type": "blip-2"},
        "empty_sections": {"model_type": "blip-2", "vision_config": {}, "qformer_config": None, "text_config": {"model_type": "opt"}},
        "sparse": {"model_type": "blip-2", "num_query_tokens": 8, "image_token_id": 7, "initializer_range": 0.05,
                   "dtype": "bfloat16",
                   "vision_config": {"image_size": 56, "num_hidden_layers": 3, "qkv_bias": False, "layer_norm_eps": 1e-5},
                   "qformer_config": {"cross_attention_frequency": 3, "num_hidden_layers": 7, "encoder_hidden_size": 99},
                   "text_config": {"hidden_size": 96, "word_embed_proj_dim": None, "bos_token_id": None, "eos_token_id": 5,
                                   "vocab_size": 1000, "activation_function": "gelu"}},
        "saved": saved,
        "saved_full": tiny,
        "old": old,
    }


def write_configs(out):
    d = os.path.join(out, "config")
    shutil.rmtree(d, ignore_errors=True)
    os.makedirs(d)
    for name, content in config_cases().items():
        with tempfile.TemporaryDirectory() as t:
            with open(os.path.join(t, "config.json"), "w") as f:
                json.dump(content, f, indent=1)
                f.write("\n")
            shutil.copy(os.path.join(t, "config.json"), os.path.join(d, name + ".json"))
            loaded = AutoConfig.from_pretrained(t)
            assert type(loaded) is Blip2Config
            loaded.save_pretrained(t)
            expected = json.load(open(os.path.join(t, "config.json")))
        expected["dtype"] = str(loaded.dtype).split(".")[-1] if loaded.dtype is not None else None
        with open(os.path.join(d, name + ".expected.json"), "w") as f:
            json.dump(expected, f, indent=1, sort_keys=True)
            f.write("\n")


def main():
    out = sys.argv[1]
    os.makedirs(out, exist_ok=True)
    write_dtypes(out)
    write_conversions(out)
    write_sharded(out)
    write_configs(out)


if __name__ == "__main__":
    main()
