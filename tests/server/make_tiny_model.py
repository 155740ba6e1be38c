#!/usr/bin/env python3
"""Writes a complete, tiny, random model directory for the server's tests: make_tiny_model.py OUT [--seed N] [--wide N]

Standard library only. Deterministic in the seed. The weights are large enough for image, text and assist all to move the
probabilities: a server that ignored one of them would not agree with `winnow-prune classify` on another.
--wide N multiplies the widths: a model that takes long enough for queues to fill.
"""
import argparse
import array
import hashlib
import json
import os
import random
import struct

LABELS = [("compliant", "合规", "pass"), ("weapons", "违禁", "block"), ("gambling", "赌博", "block"),
          ("medical_claim", "违规", "block"), ("click_bait", "诱导", "review")]
SPECIALS = ["<s>", "<pad>", "</s>", "<unk>"]


def byte_characters():
    """GPT-2's printable stand-in for every byte."""
    plain = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    table, extra = {}, 0
    for b in range(256):
        if b in plain:
            table[b] = chr(b)
        else:
            table[b] = chr(256 + extra)
            extra += 1
    return table


def tokenizer():
    chars = byte_characters()
    vocab = {t: i for i, t in enumerate(SPECIALS)}
    for b in range(256):
        vocab[chars[b]] = len(vocab)
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {"version": "1.0", "truncation": None, "padding": None,
            "added_tokens": [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False,
                              "normalized": False, "special": True} for i, t in enumerate(SPECIALS)],
            "normalizer": None, "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level,
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "vocab": vocab, "merges": []}}


def config(wide):
    v = dict(model_type="blip_2_vision_model", hidden_size=24 * wide, intermediate_size=48 * wide, num_hidden_layers=2,
             num_attention_heads=3, image_size=56, patch_size=14, hidden_act="gelu", layer_norm_eps=1e-6, qkv_bias=True)
    q = dict(model_type="blip_2_qformer", hidden_size=20 * wide, intermediate_size=40 * wide, num_hidden_layers=2,
             num_attention_heads=4, cross_attention_frequency=2, encoder_hidden_size=24 * wide, vocab_size=320,
             hidden_act="gelu", layer_norm_eps=1e-12, use_qformer_text_input=False)
    t = dict(model_type="opt", hidden_size=32 * wide, word_embed_proj_dim=32 * wide, ffn_dim=64 * wide, num_hidden_layers=2,
             num_attention_heads=4, vocab_size=320, max_position_embeddings=192, activation_function="relu",
             do_layer_norm_before=True, tie_word_embeddings=True, bos_token_id=2, eos_token_id=2, pad_token_id=1)
    return dict(architectures=["Blip2ForConditionalGeneration"], model_type="blip-2", num_query_tokens=4,
                initializer_range=0.02, dtype="float32", vision_config=v, qformer_config=q, text_config=t)


def shapes(c):
    """Hugging Face's tensor names and shapes of a Blip2ForConditionalGeneration with an OPT language model."""
    v, q, t = c["vision_config"], c["qformer_config"], c["text_config"]
    out = {}

    def linear(name, rows, columns):
        out[name + ".weight"] = [rows, columns]
        out[name + ".bias"] = [rows]

    def norm(name, d):
        out[name + ".weight"] = [d]
        out[name + ".bias"] = [d]

    d, patches = v["hidden_size"], (v["image_size"] // v["patch_size"]) ** 2
    e = "vision_model.embeddings."
    out[e + "class_embedding"] = [1, 1, d]
    out[e + "position_embedding"] = [1, 1 + patches, d]
    out[e + "patch_embedding.weight"] = [d, 3, v["patch_size"], v["patch_size"]]
    out[e + "patch_embedding.bias"] = [d]
    for i in range(v["num_hidden_layers"]):
        p = f"vision_model.encoder.layers.{i}."
        norm(p + "layer_norm1", d)
        norm(p + "layer_norm2", d)
        linear(p + "self_attn.qkv", 3 * d, d)
        linear(p + "self_attn.projection", d, d)
        linear(p + "mlp.fc1", v["intermediate_size"], d)
        linear(p + "mlp.fc2", d, v["intermediate_size"])
    norm("vision_model.post_layernorm", d)
    h = q["hidden_size"]
    out["query_tokens"] = [1, c["num_query_tokens"], h]
    norm("qformer.layernorm", h)
    for i in range(q["num_hidden_layers"]):
        p = f"qformer.encoder.layer.{i}."
        for kind in ["attention"] + (["crossattention"] if i % q["cross_attention_frequency"] == 0 else []):
            width = d if kind == "crossattention" else h
            linear(p + kind + ".attention.query", h, h)
            linear(p + kind + ".attention.key", h, width)
            linear(p + kind + ".attention.value", h, width)
            linear(p + kind + ".output.dense", h, h)
            norm(p + kind + ".output.LayerNorm", h)
        linear(p + "intermediate_query.dense", q["intermediate_size"], h)
        linear(p + "output_query.dense", h, q["intermediate_size"])
        norm(p + "output_query.LayerNorm", h)
    w = t["hidden_size"]
    linear("language_projection", w, h)
    p = "language_model.model.decoder."
    out[p + "embed_tokens.weight"] = [t["vocab_size"], w]
    out[p + "embed_positions.weight"] = [t["max_position_embeddings"] + 2, w]
    norm(p + "final_layer_norm", w)
    for i in range(t["num_hidden_layers"]):
        b = p + f"layers.{i}."
        for name in ["q_proj", "k_proj", "v_proj", "out_proj"]:
            linear(b + "self_attn." + name, w, w)
        norm(b + "self_attn_layer_norm", w)
        linear(b + "fc1", t["ffn_dim"], w)
        linear(b + "fc2", w, t["ffn_dim"])
        norm(b + "final_layer_norm", w)
    return out


def values(name, shape, r):
    count = 1
    for s in shape:
        count *= s
    if name.endswith("bias"):
        return [r.uniform(-0.1, 0.1) for _ in range(count)]
    if len(shape) == 1:
        return [1 + r.uniform(-0.1, 0.1) for _ in range(count)]
    fan_in = shape[-1] if len(shape) == 2 else shape[1] * shape[2] * shape[3] if len(shape) == 4 else 1
    scale = 0.5 if "embed" in name or name == "query_tokens" else 1.7 / fan_in ** 0.5
    if count > 200000:  # wide models: drawing every number would take the test's time
        block = [r.uniform(-scale, scale) for _ in range(65537)]
        return (block * (count // len(block) + 1))[:count]
    return [r.uniform(-scale, scale) for _ in range(count)]


def write_safetensors(path, tensors, r):
    header, data = {"__metadata__": {"format": "pt"}}, bytearray()
    for name, shape in sorted(tensors.items()):
        a = array.array("f", values(name, shape, r))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + 4 * len(a)]}
        data += a.tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 64)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def make(out, seed=0, wide=1, name="tiny"):
    os.makedirs(out, exist_ok=True)
    c = config(wide)
    documents = {
        "config.json": c,
        "tokenizer.json": tokenizer(),
        "preprocessor_config.json": {"image_processor_type": "BlipImageProcessor", "do_resize": True, "do_normalize": True,
                                     "do_rescale": True, "do_convert_rgb": True, "resample": 3,
                                     "rescale_factor": 1 / 255, "size": {"height": 56, "width": 56},
                                     "image_mean": [0.48145466, 0.4578275, 0.40821073],
                                     "image_std": [0.26862954, 0.26130258, 0.27577711]},
    }
    for file, document in documents.items():
        with open(os.path.join(out, file), "w", encoding="utf-8") as f:
            json.dump(document, f, ensure_ascii=False)
    write_safetensors(os.path.join(out, "model.safetensors"), shapes(c), random.Random(seed))
    digests = {}
    for file in sorted(list(documents) + ["model.safetensors"]):
        with open(os.path.join(out, file), "rb") as f:
            digests[file] = "sha256:" + hashlib.sha256(f.read()).hexdigest()
    manifest = {"format": 1, "name": name, "prompt": "内容:{text} 补充:{assist} 判定:", "max_text_tokens": 128,
                "labels": [{"name": n, "verbalizer": v, "action": a, "threshold": 0.3, "review_threshold": 0.2}
                           for n, v, a in LABELS],
                "precision": "f32", "lineage": {"made_by": "tests/server/make_tiny_model.py", "seed": seed},
                "files": digests}
    with open(os.path.join(out, "winnow.json"), "w", encoding="utf-8") as f:
        json.dump(manifest, f, ensure_ascii=False)


if __name__ == "__main__":
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("out")
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--wide", type=int, default=1)
    a = ap.parse_args()
    make(a.out, a.seed, a.wide)
