#!/usr/bin/env python3
"""Draw the request and answer it with PyTorch in f32:  make_request.py MODEL OUT.safetensors --tokens 64

Runs in the peers' Python. OUT has pixel_values, input_ids and logits [1, vocabulary]: the logits of the last position that all
variants are compared with. A model whose logits hardly depend on the image or on the text is refused: there a comparison would
say nothing.
"""
import argparse
import os
import sys

import torch
from safetensors.torch import save_file

import blip2_request

LEAST_EFFECT = 1e-3     # of another image, or another text, on the logits


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("model")
    ap.add_argument("out")
    ap.add_argument("--tokens", type=int, required=True)
    a = ap.parse_args()
    net = blip2_request.load(a.model)
    pixels, ids = blip2_request.draw(net, a.tokens, 1)
    other_pixels, other_ids = blip2_request.draw(net, a.tokens, 2)
    other_ids[:, -1] = ids[:, -1]       # the last token decides much by itself
    with torch.inference_mode():
        logits = net(pixels, ids)
        for what, other in (("image", net(other_pixels, ids)), ("text", net(pixels, other_ids))):
            effect = float((other - logits).norm() / logits.norm())
            print(f"another {what} changes the logits by {100 * effect:.2g} %", file=sys.stderr)
            if a.tokens > 1 and not effect > LEAST_EFFECT:
                sys.exit(f"{a.model}: another {what} changes the logits by {effect:.2g} of their size, expected more than {LEAST_EFFECT:g}")
    save_file({"pixel_values": pixels, "input_ids": ids, "logits": logits.clone()}, a.out)
    os.chmod(a.out, 0o644)


if __name__ == "__main__":
    main()
