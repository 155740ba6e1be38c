"""What is timed. Every variant answers the same kind of request with the same checkpoint.

    file    of the variant's model: "model" is the checkpoint, others are made from it (work.py)
"""
from collections import namedtuple

Variant = namedtuple("Variant", "name title family precision file")

# In this order variants follow each other in the first round: neighbours are not of one family.
VARIANTS = (
    Variant("winnow-int8", "winnow int8", "winnow", "int8", "model"),
    Variant("ort-int8", "ONNX Runtime int8, dynamic", "ort", "int8", "int8.onnx"),
    Variant("torch-bf16", "PyTorch bf16", "torch", "bf16", "model"),
    Variant("ort-int8-pc", "ONNX Runtime int8, dynamic, per channel", "ort", "int8", "int8-pc.onnx"),
    Variant("winnow-bf16", "winnow bf16", "winnow", "bf16", "model"),
    Variant("ort-int8-qdq", "ONNX Runtime int8, static (QDQ)", "ort", "int8", "int8-qdq.onnx"),
    Variant("torch-int8", "PyTorch int8, dynamic", "torch", "int8", "model"),
    Variant("ort-f32", "ONNX Runtime f32", "ort", "f32", "f32.onnx"),
    Variant("winnow-f32", "winnow f32", "winnow", "f32", "model"),
    Variant("torch-f32", "PyTorch f32", "torch", "f32", "model"),
)
NAMES = tuple(v.name for v in VARIANTS)

# What the ratios of the table are to: the fastest variant of each kind that was timed.
BASELINES = (("ONNX Runtime int8", "ort", "int8"), ("ONNX Runtime f32", "ort", "f32"), ("PyTorch bf16", "torch", "bf16"))
