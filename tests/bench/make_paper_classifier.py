#!/usr/bin/env python3
"""A classifier of the paper's student size, for measuring a server: the weights of a checkpoint without text
(tests/bench/peers makes one, winnow-prune quantize its int8 twin), with the tokenizer, prompt and labels of a classifier.

  tests/bench/make_paper_classifier.py --weights WORK/paper/model --like registry/ad-audit/1 --out /tmp/paper-f32
  build/server/winnow-serve --set model.dir=/tmp/paper-f32 --set inference.precision=int8

What it answers means nothing: the weights are random. Files are linked, not copied.
"""
import argparse
import hashlib
import json
import os
import pathlib
import sys

LABELLING = ("format", "name", "prompt", "labels")


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def link(source, target):
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system
        target.symlink_to(source.resolve())


def digest(path):
    with open(path, "rb") as f:
        return "sha256:" + hashlib.file_digest(f, "sha256").hexdigest()


def make(weights, like, out, tokens):
    out.mkdir(parents=True, exist_ok=True)
    for source in weights.iterdir():
        if source.suffix == ".safetensors" or source.name in ("config.json", "model.safetensors.index.json"):
            link(source, out / source.name)
    link(like / "tokenizer.json", out / "tokenizer.json")
    side = read(weights / "config.json")["vision_config"]["image_size"]
    processor = read(like / "preprocessor_config.json") | {"size": {"height": side, "width": side}}
    (out / "preprocessor_config.json").write_text(json.dumps(processor, indent=1))
    own = weights / "winnow.json"
    stored = {k: v for k, v in (read(own) if own.exists() else {}).items() if k in ("precision", "quantization")}
    labelling = {k: v for k, v in read(like / "winnow.json").items() if k in LABELLING}
    files = {f.name: digest(f) for f in sorted(out.iterdir()) if f.name != "winnow.json"}
    manifest = labelling | {"max_text_tokens": tokens} | stored | {"files": files}
    (out / "winnow.json").write_text(json.dumps(manifest, ensure_ascii=False, indent=1), encoding="utf-8")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--weights", type=pathlib.Path, required=True, help="directory with config.json and model.safetensors")
    p.add_argument("--like", type=pathlib.Path, required=True, help="classifier whose tokenizer, prompt and labels are taken")
    p.add_argument("--out", type=pathlib.Path, required=True)
    p.add_argument("--tokens", type=int, default=64, help="a prompt's tokens at most (64)")
    a = p.parse_args()
    try:
        make(a.weights, a.like, a.out, a.tokens)
    except OSError as e:
        sys.exit(f"make_paper_classifier: {e}")


if __name__ == "__main__":
    main()
