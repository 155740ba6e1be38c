#!/usr/bin/env python3
"""Checks, against the real library, that a tokenizer.json of ours loads there and gives the same ids. By hand; needs
python3-tokenizers (Debian sid).

    winnow-prune tokenize --model DIR < lines.txt > ids.txt
    python3 check_trained.py DIR/tokenizer.json lines.txt ids.txt [--no-special]

ids.txt holds the ids of each line of lines.txt, separated by spaces. winnow-prune tokenize says whether it adds special
tokens; --no-special compares with encode(add_special_tokens=False).
"""
import sys

from tokenizers import Tokenizer


def read_lines(path):
    with open(path, encoding="utf-8", newline="\n") as f:
        return f.read().removesuffix("\n").split("\n")


def main():
    args = [a for a in sys.argv[1:] if a != "--no-special"]
    if len(args) != 3:
        sys.exit(__doc__)
    tokenizer = Tokenizer.from_file(args[0])
    lines, ids = read_lines(args[1]), read_lines(args[2])
    if len(lines) != len(ids):
        sys.exit(f"{args[2]}: {len(ids)} lines, expected {len(lines)}")
    bad = 0
    for n, (text, ours) in enumerate(zip(lines, ids), 1):
        theirs = tokenizer.encode(text, add_special_tokens="--no-special" not in sys.argv).ids
        if list(map(int, ours.split())) != theirs:
            bad += 1
            print(f"line {n}: {text!r}\n  ours   {ours}\n  theirs {' '.join(map(str, theirs))}")
    print(f"{len(lines)} lines, {bad} differ; vocabulary {tokenizer.get_vocab_size()}")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
