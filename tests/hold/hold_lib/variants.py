"""Two models of the same shape, and so of the same speed, that answer differently."""
import array
import json
import os
import shutil
import struct

from spoil_model import edit_manifest, redigest

GAIN = 0.3  # on the logits: the same favourites, told with less confidence
SCALED = "language_model.model.decoder.final_layer_norm."


class VariantError(Exception):
    pass


def scale_tensors(path, prefix, factor):
    with open(path, "r+b") as f:
        size = struct.unpack("<Q", f.read(8))[0]
        header = json.loads(f.read(size))
        found = {n: t for n, t in header.items() if n.startswith(prefix)}
        if len(found) != 2 or any(t["dtype"] != "F32" for t in found.values()):
            raise VariantError(f"{path}: expected {prefix}weight and bias in F32; give a second model with --other")
        for t in found.values():
            begin, end = t["data_offsets"]
            f.seek(8 + size + begin)
            values = array.array("f", f.read(end - begin))
            f.seek(8 + size + begin)
            f.write(array.array("f", [factor * v for v in values]).tobytes())


def make_variant(model, out):
    """A copy of the model directory with its last normalisation scaled; the publisher gives it a self test of its own."""
    shutil.copytree(model, out)
    scale_tensors(os.path.join(out, "model.safetensors"), SCALED, GAIN)
    redigest(out)
    edit_manifest(out, lambda m: m.pop("self_test", None))
