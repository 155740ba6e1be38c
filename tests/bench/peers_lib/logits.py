"""How near winnow's logits are to the request's, which PyTorch computed in f32: what the peers' workers say of themselves."""
import array
import json
import math
import os
import struct

from . import child


def last_row(path):
    """Of the tensor "logits" (F32) of a safetensors file."""
    with open(path, "rb") as f:
        (size,) = struct.unpack("<Q", f.read(8))
        entry = json.loads(f.read(size))["logits"]
        if entry["dtype"] != "F32":
            raise child.ChildError(f"{path}: logits: found {entry['dtype']}, expected F32")
        width = 4 * entry["shape"][-1]
        f.seek(8 + size + entry["data_offsets"][1] - width)
        row = array.array("f")
        row.frombytes(f.read(width))
    return row


def cosine(a, b):
    product = math.fsum(x * y for x, y in zip(a, b, strict=True))
    return product / math.sqrt(math.fsum(x * x for x in a) * math.fsum(y * y for y in b))


def of_winnow(program, work, precision):
    """Through `forward`, with the precision that is timed; ChildError when it cannot."""
    out = work.path(f"{work.scale}/forward.safetensors")
    words = [program, "forward", "--model", work.path(work.relative("model")), "--in", work.path(work.relative("request")),
             "--out", out, "--precision", precision]
    try:
        child.run("winnow-prune forward", words, work.log("forward"))
        return cosine(last_row(out), last_row(work.path(work.relative("request"))))
    finally:
        if os.path.exists(out):
            os.unlink(out)
