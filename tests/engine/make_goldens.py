#!/usr/bin/env python3
"""Write the engine's goldens: tiny BLIP-2 checkpoints, inputs, and what stock transformers and PyTorch autograd make of them.

    python3 make_goldens.py OUT          # the committed ones: OUT = golden

Needs python3-torch, python3-transformers and python3-safetensors (Debian sid). Every OUT/CASE is a model directory with
  in.safetensors   pixel_values, input_ids, [attention_mask], [labels]
  out.safetensors  vision_last_hidden_state, qformer_last_hidden_state, logits (f32, eval mode, eager attention)
  grad.safetensors loss and every parameter's gradient (cases with labels)
and, for one case, adamw.json: the losses of ten torch.optim.AdamW steps.
Weights are drawn so that every parameter matters: the library's own initialisation leaves biases at zero and the vision
tower invisible. 16-bit cases: the expected values come from the rounded weights, computed in f32.
"""
import copy
import json
import os
import sys

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import Blip2Config, Blip2ForConditionalGeneration

VOCAB = 61
PAD = 1

# Vision and Q-Former: (hidden, heads, ffn, layers); text: the same. Heads and head sizes differ between the stacks.
CASES = {
    # 5x5 patches; left-padded batch; the pad id also as a real token, whose lookup gets no gradient in PyTorch.
    "base": dict(v=(24, 3, 40, 2), q=(20, 2, 36, 3), t=(32, 4, 56, 2), image=20, patch=4, freq=2, queries=5,
                 n=3, T=7, mask="left", labels=True, pad_as_token=True),
    # 7x7 patches, no qkv bias, cross-attention everywhere, one head somewhere, right padding.
    "no_qkv_bias": dict(v=(16, 1, 24, 2), q=(12, 3, 20, 2), t=(20, 2, 28, 2), image=21, patch=3, freq=1, queries=3,
                        qkv_bias=False, n=2, T=6, mask="right", labels=True),
    # Cross-attention in blocks 0 and 3 only; other epsilons; no mask; the tied head is in the file.
    "freq3": dict(v=(16, 4, 20, 1), q=(12, 2, 16, 4), t=(24, 3, 32, 2), image=12, patch=4, freq=3, queries=4,
                  eps=(1e-3, 1e-4), n=2, T=5, mask=None, labels=True, save_lm_head=True),
    # Four shards with an index; a mask with holes.
    "sharded": dict(v=(16, 2, 24, 2), q=(16, 4, 24, 2), t=(16, 2, 40, 3), image=15, patch=5, freq=2, queries=6,
                    shard="24KB", n=2, T=9, mask="holes"),
    "f16": dict(v=(24, 4, 32, 2), q=(16, 2, 32, 2), t=(24, 2, 40, 2), image=16, patch=4, freq=2, queries=4,
                dtype=torch.float16, n=2, T=6, mask="left"),
    "bf16_sharded": dict(v=(16, 2, 32, 2), q=(24, 3, 32, 2), t=(32, 8, 40, 2), image=18, patch=6, freq=1, queries=7,
                         dtype=torch.bfloat16, shard="24KB", n=2, T=6, mask="left", save_lm_head=True),
    # The smallest there is.
    "single": dict(v=(8, 2, 4, 1), q=(8, 1, 4, 1), t=(8, 4, 4, 1), image=4, patch=4, freq=2, queries=1, n=1, T=1, mask=None),
}


def make_config(c):
    (vh, vn, vf, vl), (qh, qn, qf, ql), (th, tn, tf, tl) = c["v"], c["q"], c["t"]
    v_eps, q_eps = c.get("eps", (1e-6, 1e-12))
    return Blip2Config(
        vision_config=dict(hidden_size=vh, intermediate_size=vf, num_hidden_layers=vl, num_attention_heads=vn,
                           image_size=c["image"], patch_size=c["patch"], hidden_act="gelu", layer_norm_eps=v_eps,
                           qkv_bias=c.get("qkv_bias", True)),
        qformer_config=dict(hidden_size=qh, intermediate_size=qf, num_hidden_layers=ql, num_attention_heads=qn,
                            cross_attention_frequency=c["freq"], encoder_hidden_size=vh, layer_norm_eps=q_eps,
                            vocab_size=VOCAB),
        text_config=dict(model_type="opt", hidden_size=th, word_embed_proj_dim=th, ffn_dim=tf, num_hidden_layers=tl,
                         num_attention_heads=tn, vocab_size=VOCAB, max_position_embeddings=24, dropout=0.0),
        num_query_tokens=c["queries"])


def randomise(params, g):
    """Matrices with a gain that keeps activations of order one; norms around 1; biases that matter."""
    with torch.no_grad():
        for name, p in params:
            r = torch.randn(p.shape, generator=g)
            if "norm" in name.lower() and name.endswith("weight"):
                p.copy_(1 + 0.3 * r)
            elif p.dim() == 1:
                p.copy_(0.3 * r)
            elif "embed" in name and "patch" not in name or name == "query_tokens":
                p.copy_(0.5 * r)
            else:
                p.copy_(r / p[0].numel() ** 0.5 * 1.2)


def make_inputs(c, g):
    n, T = c["n"], c["T"]
    x = {"pixel_values": torch.randn(n, 3, c["image"], c["image"], generator=g),
         "input_ids": torch.randint(4, VOCAB, (n, T), generator=g)}
    if c["mask"]:
        mask = torch.ones(n, T, dtype=torch.long)
        for i in range(n):
            if c["mask"] == "left":
                mask[i, :i + 1 if i else 0] = 0
            elif c["mask"] == "right" and i:
                mask[i, T - i - 1:] = 0
            elif c["mask"] == "holes":
                mask[i, [1 + i, 4]] = 0
        x["input_ids"][mask == 0] = PAD
        x["attention_mask"] = mask
    if c.get("pad_as_token"):
        x["input_ids"][0, 2] = PAD
    if c.get("labels"):
        labels = torch.randint(0, VOCAB, (n, T), generator=g)
        if c["mask"]:
            labels[x["attention_mask"] == 0] = -100
        labels[0, T // 2] = -100  # an ignored one inside; column 0 stays a label that nothing predicts
        x["labels"] = labels
    return x


def loss_of(logits, labels):
    """Blip2ForConditionalGeneration's own: the last T logits, shifted."""
    logits = logits[:, -labels.shape[1]:]
    return F.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1))


def stock_forward(m, x):
    """Query embeddings in front of the embedded text, as Blip2ForConditionalGeneration runs its parts."""
    features = m.get_image_features(x["pixel_values"], return_dict=True)
    e = m.get_input_embeddings()(x["input_ids"])
    prefix = features.pooler_output.to(e.dtype)
    mask = x.get("attention_mask", torch.ones_like(x["input_ids"]))
    mask = torch.cat([torch.ones(prefix.shape[:2], dtype=torch.long), mask], 1)
    h = m.language_model.model(inputs_embeds=torch.cat([prefix, e], 1), attention_mask=mask, use_cache=False).last_hidden_state
    return features.vision_outputs.last_hidden_state, features.qformer_outputs.last_hidden_state, m.language_model.lm_head(h)


def check_with_image_tokens(m, x, logits, queries):
    """The library's own forward, with image tokens in front, must say the same. (Its image token must not be in the text.)"""
    image_token = 0
    m.config.image_token_index = image_token
    ids = torch.cat([torch.full((x["input_ids"].shape[0], queries), image_token), x["input_ids"]], 1)
    assert not (x["input_ids"] == image_token).any()
    mask = x.get("attention_mask", torch.ones_like(x["input_ids"]))
    mask = torch.cat([torch.ones(mask.shape[0], queries, dtype=torch.long), mask], 1)
    own = m(pixel_values=x["pixel_values"], input_ids=ids, attention_mask=mask, labels=x.get("labels"))
    m.config.image_token_index = None
    if "labels" in x:  # the logits come back cut to the labels
        assert torch.allclose(own.loss, loss_of(logits, x["labels"]), atol=1e-5)
        logits = logits[:, -x["labels"].shape[1]:]
    assert own.logits.shape == logits.shape and torch.allclose(own.logits, logits, atol=1e-4)


def write_case(out, name, c, seed):
    d = os.path.join(out, name)
    g = torch.Generator().manual_seed(seed)
    m = Blip2ForConditionalGeneration._from_config(make_config(c), attn_implementation="eager").eval()
    randomise(m.named_parameters(), g)
    dtype = c.get("dtype", torch.float32)
    rounded = copy.deepcopy(m).to(dtype)
    rounded.save_pretrained(d, **({"max_shard_size": c["shard"]} if "shard" in c else {}))
    os.unlink(os.path.join(d, "generation_config.json"))
    if c.get("save_lm_head"):
        add_lm_head(d, rounded)
    m = rounded.float()
    x = make_inputs(c, g)
    save_file(x, os.path.join(d, "in.safetensors"))
    vision, qformer, logits = stock_forward(m, x)
    save_file({"vision_last_hidden_state": vision.detach(), "qformer_last_hidden_state": qformer.detach(),
               "logits": logits.detach()}, os.path.join(d, "out.safetensors"))
    check_with_image_tokens(m, x, logits, c["queries"])
    if "labels" in x:
        m.zero_grad()
        loss = loss_of(logits, x["labels"])
        loss.backward()
        save_file({"loss": loss.detach().reshape(1), **{k: p.grad for k, p in m.named_parameters()}},
                  os.path.join(d, "grad.safetensors"))
        if name == "base":
            write_adamw(d, m, x)


def add_lm_head(d, m):
    """Older exports carry the tied head as a tensor of its own."""
    key, head = "language_model.lm_head.weight", m.language_model.lm_head.weight.detach().clone()
    index = os.path.join(d, "model.safetensors.index.json")
    if not os.path.exists(index):
        path = os.path.join(d, "model.safetensors")
        save_file({**load_file(path), key: head}, path, metadata={"format": "pt"})
        return
    with open(index) as f:
        j = json.load(f)
    name = "model-lm-head.safetensors"
    save_file({key: head}, os.path.join(d, name), metadata={"format": "pt"})
    j["weight_map"][key] = name
    with open(index, "w") as f:
        json.dump(j, f, indent=1)


def write_adamw(d, m, x):
    """Ten steps at a rate that moves the loss a lot; decay on matrices only, as winnow's param.decay says (no biases, norms,
    positions, class or query tokens)."""
    def decays(name, p):
        return p.dim() >= 2 and not any(s in name for s in ("position", "class_embedding", "query_tokens"))
    named = list(m.named_parameters())
    opt = torch.optim.AdamW([{"params": [p for k, p in named if decays(k, p)], "weight_decay": 0.05},
                             {"params": [p for k, p in named if not decays(k, p)], "weight_decay": 0.0}],
                            lr=3e-3, betas=(0.9, 0.98), eps=1e-6)
    losses = []
    for _ in range(10):
        opt.zero_grad()
        loss = loss_of(stock_forward(m, x)[2], x["labels"])
        loss.backward()
        opt.step()
        losses.append(loss.item())
    with open(os.path.join(d, "adamw.json"), "w") as f:
        json.dump(dict(lr=3e-3, beta1=0.9, beta2=0.98, eps=1e-6, weight_decay=0.05, losses=losses), f, indent=1)


# ---- blocks of different widths: a plain functional model, since transformers cannot express them ----

# Per block: (heads, head size, ffn) and, for the Q-Former, (cross heads, cross head size).
WIDTHS = dict(
    hidden=dict(vision=16, qformer=12, text=20), image=12, patch=4, queries=4, max_positions=24,
    vision=[(2, 8, 20), (3, 4, 28), (1, 24, 8)],
    qformer=[(2, 6, 16, 1, 10), (3, 8, 12), (1, 4, 24, 2, 5)],
    text=[(4, 5, 40), (2, 3, 12), (3, 8, 24)])


def width_params(w):
    """Names and shapes as Hugging Face names them."""
    hv, hq, ht = w["hidden"]["vision"], w["hidden"]["qformer"], w["hidden"]["text"]
    s = {}

    def linear(name, o, i):
        s[name + ".weight"], s[name + ".bias"] = (o, i), (o,)

    def norm(name, h):
        s[name + ".weight"], s[name + ".bias"] = (h,), (h,)

    v = "vision_model."
    s[v + "embeddings.class_embedding"] = (1, 1, hv)
    s[v + "embeddings.position_embedding"] = (1, (w["image"] // w["patch"]) ** 2 + 1, hv)
    s[v + "embeddings.patch_embedding.weight"] = (hv, 3, w["patch"], w["patch"])
    s[v + "embeddings.patch_embedding.bias"] = (hv,)
    for i, (n, d, f) in enumerate(w["vision"]):
        p = f"{v}encoder.layers.{i}."
        linear(p + "self_attn.qkv", 3 * n * d, hv)
        linear(p + "self_attn.projection", hv, n * d)
        norm(p + "layer_norm1", hv)
        norm(p + "layer_norm2", hv)
        linear(p + "mlp.fc1", f, hv)
        linear(p + "mlp.fc2", hv, f)
    norm(v + "post_layernorm", hv)
    s["query_tokens"] = (1, w["queries"], hq)
    norm("qformer.layernorm", hq)
    for i, b in enumerate(w["qformer"]):
        p = f"qformer.encoder.layer.{i}."
        for kind, n, d, kv in [("attention", b[0], b[1], hq)] + ([("crossattention", b[3], b[4], hv)] if len(b) > 3 else []):
            linear(f"{p}{kind}.attention.query", n * d, hq)
            linear(f"{p}{kind}.attention.key", n * d, kv)
            linear(f"{p}{kind}.attention.value", n * d, kv)
            linear(f"{p}{kind}.output.dense", hq, n * d)
            norm(f"{p}{kind}.output.LayerNorm", hq)
        linear(p + "intermediate_query.dense", b[2], hq)
        linear(p + "output_query.dense", hq, b[2])
        norm(p + "output_query.LayerNorm", hq)
    linear("language_projection", ht, hq)
    t = "language_model.model.decoder."
    s[t + "embed_tokens.weight"] = (VOCAB, ht)
    s[t + "embed_positions.weight"] = (w["max_positions"] + 2, ht)
    for i, (n, d, f) in enumerate(w["text"]):
        p = f"{t}layers.{i}."
        for k in "qkv":
            linear(f"{p}self_attn.{k}_proj", n * d, ht)
        linear(p + "self_attn.out_proj", ht, n * d)
        norm(p + "self_attn_layer_norm", ht)
        norm(p + "final_layer_norm", ht)
        linear(p + "fc1", f, ht)
        linear(p + "fc2", ht, f)
    norm(t + "final_layer_norm", ht)
    return s


def functional_forward(P, w, x):
    """The three stacks over a dict of parameters and per-block widths."""
    lin = lambda n, h: F.linear(h, P[n + ".weight"], P[n + ".bias"])
    norm = lambda n, h, eps: F.layer_norm(h, h.shape[-1:], P[n + ".weight"], P[n + ".bias"], eps)

    def attend(q, k, v, heads, mask=None):
        split = lambda y: y.view(y.shape[0], y.shape[1], heads, -1).transpose(1, 2)
        q, k, v = split(q), split(k), split(v)
        a = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        if mask is not None:
            a = a + mask
        return (a.softmax(-1) @ v).transpose(1, 2).flatten(2)

    v = "vision_model."
    h = F.conv2d(x["pixel_values"], P[v + "embeddings.patch_embedding.weight"], P[v + "embeddings.patch_embedding.bias"],
                 stride=w["patch"]).flatten(2).transpose(1, 2)
    h = torch.cat([P[v + "embeddings.class_embedding"].expand(len(h), 1, -1), h], 1) + P[v + "embeddings.position_embedding"]
    for i, b in enumerate(w["vision"]):
        p = f"{v}encoder.layers.{i}."
        h = h + lin(p + "self_attn.projection", attend(*lin(p + "self_attn.qkv", norm(p + "layer_norm1", h, 1e-6)).chunk(3, -1), b[0]))
        h = h + lin(p + "mlp.fc2", F.gelu(lin(p + "mlp.fc1", norm(p + "layer_norm2", h, 1e-6))))
    vision = norm(v + "post_layernorm", h, 1e-6)

    h = norm("qformer.layernorm", P["query_tokens"].expand(len(vision), -1, -1), 1e-12)
    for i, b in enumerate(w["qformer"]):
        p = f"qformer.encoder.layer.{i}."
        for kind, heads, kv in [("attention", b[0], None)] + ([("crossattention", b[3], vision)] if len(b) > 3 else []):
            kv = h if kv is None else kv
            a = attend(lin(f"{p}{kind}.attention.query", h), lin(f"{p}{kind}.attention.key", kv), lin(f"{p}{kind}.attention.value", kv), heads)
            h = norm(f"{p}{kind}.output.LayerNorm", lin(f"{p}{kind}.output.dense", a) + h, 1e-12)
        h = norm(p + "output_query.LayerNorm", lin(p + "output_query.dense", F.gelu(lin(p + "intermediate_query.dense", h))) + h, 1e-12)
    qformer = h

    t = "language_model.model.decoder."
    e = F.embedding(x["input_ids"], P[t + "embed_tokens.weight"], padding_idx=PAD)
    h = torch.cat([lin("language_projection", qformer), e], 1)
    mask = torch.cat([torch.ones(len(h), w["queries"], dtype=torch.long), x["attention_mask"]], 1)
    h = h + P[t + "embed_positions.weight"][mask.cumsum(1) * mask - 1 + 2]
    L = h.shape[1]
    seen = torch.ones(L, L, dtype=torch.bool).tril()[None] & (mask[:, None, :] == 1)
    bias = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[:, None]
    for i, b in enumerate(w["text"]):
        p = f"{t}layers.{i}."
        y = norm(p + "self_attn_layer_norm", h, 1e-5)
        h = h + lin(p + "self_attn.out_proj", attend(*[lin(f"{p}self_attn.{k}_proj", y) for k in "qkv"], b[0], bias))
        h = h + lin(p + "fc2", F.relu(lin(p + "fc1", norm(p + "final_layer_norm", h, 1e-5))))
    return vision, qformer, F.linear(norm(t + "final_layer_norm", h, 1e-5), P[t + "embed_tokens.weight"])


def check_functional(out):
    """The functional model against transformers, where both can run: on the case `base`."""
    c = CASES["base"]
    heads = lambda s, cross: [(s[1], s[0] // s[1], s[2]) + ((s[1], s[0] // s[1]) if cross and i % c["freq"] == 0 else ())
                              for i in range(s[3])]
    w = dict(image=c["image"], patch=c["patch"], queries=c["queries"], vision=heads(c["v"], 0), qformer=heads(c["q"], 1),
             text=heads(c["t"], 0))
    d = os.path.join(out, "base")
    got = functional_forward(load_file(os.path.join(d, "model.safetensors")), w, load_file(os.path.join(d, "in.safetensors")))
    want = load_file(os.path.join(d, "out.safetensors"))
    for g, k in zip(got, ("vision_last_hidden_state", "qformer_last_hidden_state", "logits")):
        assert torch.allclose(g, want[k], atol=1e-4), k


def write_widths(out):
    """config.json says what it can (block 0's widths); winnow.json's "widths" says the rest."""
    w, d = WIDTHS, os.path.join(out, "widths")
    os.makedirs(d, exist_ok=True)
    g = torch.Generator().manual_seed(99)
    P = {k: torch.empty(s) for k, s in width_params(w).items()}
    randomise(P.items(), g)
    save_file(P, os.path.join(d, "model.safetensors"), metadata={"format": "pt"})
    h = w["hidden"]
    cfg = Blip2Config(
        vision_config=dict(hidden_size=h["vision"], intermediate_size=20, num_hidden_layers=3, num_attention_heads=2,
                           image_size=w["image"], patch_size=w["patch"], hidden_act="gelu"),
        qformer_config=dict(hidden_size=h["qformer"], intermediate_size=16, num_hidden_layers=3, num_attention_heads=2,
                            cross_attention_frequency=2, encoder_hidden_size=h["vision"], vocab_size=VOCAB),
        text_config=dict(model_type="opt", hidden_size=h["text"], word_embed_proj_dim=h["text"], ffn_dim=40,
                         num_hidden_layers=3, num_attention_heads=4, vocab_size=VOCAB,
                         max_position_embeddings=w["max_positions"], dropout=0.0),
        num_query_tokens=w["queries"], architectures=["Blip2ForConditionalGeneration"])
    cfg.save_pretrained(d)
    keys = ("num_heads", "head_dim", "ffn_dim", "cross_num_heads", "cross_head_dim")
    manifest = {"format": 1, "name": "widths", "prompt": "{text}:", "max_text_tokens": 8,
                "labels": [{"name": "no", "verbalizer": "no", "action": "block", "threshold": 0.5, "review_threshold": 0.2},
                           {"name": "yes", "verbalizer": "yes", "action": "pass", "threshold": 0.5, "review_threshold": 0.2}],
                "widths": {s: [dict(zip(keys, b)) for b in w[s]] for s in ("vision", "qformer", "text")},
                "precision": "f32"}
    with open(os.path.join(d, "winnow.json"), "w") as f:
        json.dump(manifest, f, indent=1)
    x = make_inputs(dict(n=3, T=6, image=w["image"], mask="left", labels=True), g)
    save_file(x, os.path.join(d, "in.safetensors"))
    for p in P.values():
        p.requires_grad_()
    vision, qformer, logits = functional_forward(P, w, x)
    loss = loss_of(logits, x["labels"])
    loss.backward()
    save_file({"vision_last_hidden_state": vision.detach(), "qformer_last_hidden_state": qformer.detach(),
               "logits": logits.detach()}, os.path.join(d, "out.safetensors"))
    save_file({"loss": loss.detach().reshape(1), **{k: p.grad for k, p in P.items()}}, os.path.join(d, "grad.safetensors"))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    torch.use_deterministic_algorithms(True)
    for seed, (name, case) in enumerate(CASES.items()):
        write_case(sys.argv[1], name, case, seed)
    check_functional(sys.argv[1])
    write_widths(sys.argv[1])
    size = sum(os.path.getsize(os.path.join(r, f)) for r, _, fs in os.walk(sys.argv[1]) for f in fs)
    print(f"{sys.argv[1]}: {len(CASES) + 1} cases, {size:,} bytes")
