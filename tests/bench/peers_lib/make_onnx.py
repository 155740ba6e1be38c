#!/usr/bin/env python3
"""Make the model of one ONNX Runtime variant:

    make_onnx.py f32 MODEL REQUEST.safetensors OUT.onnx        export
    make_onnx.py int8|int8-pc|int8-qdq F32.onnx OUT.onnx       quantise that

Runs in the peers' Python (torch, transformers, onnx, onnxruntime). int8 is dynamic (activations are quantised while it runs), int8-pc
dynamic with a scale per output channel, int8-qdq static with a scale per output channel and activations' ranges from a few random
requests. Of what ONNX Runtime 1.23 could do besides, by the graphs that its sessions come to:
  quant_pre_process     optimises before quantisation. The quantised operators are the same with it and without, but twice as many
                        reshapes stay; and a session refuses what it makes of the f32 model (two initializers of one name).
  transformers.optimizer  finds no attention to fuse in this model; norms, residuals and GELU are fused by the session itself.
"""
import sys

import numpy as np
import onnx     # before onnxruntime: Debian sid's libraries crash when they are loaded in the other order
import onnxruntime as ort
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

CALIBRATION_REQUESTS = 8
# Weights are s8: with VNNI u8 · s8 is the fast product, and its sums cannot overflow, so all of the range may be used.
WEIGHTS = dict(weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"])


def export(model, request, out):
    import torch
    from safetensors.torch import load_file

    import blip2_request

    given = load_file(request)
    # Opset 17 has LayerNormalization as one operator. Shapes are those of the request: nothing is left to run time.
    # The other exporter (dynamo) needs onnxscript, which Debian does not have.
    torch.onnx.export(blip2_request.load(model), (given["pixel_values"], given["input_ids"]), out, dynamo=False, opset_version=17,
                      input_names=["pixel_values", "input_ids"], output_names=["logits"], do_constant_folding=True)


class RandomRequests(CalibrationDataReader):
    """Drawn as the timed request is, with other seeds."""

    def __init__(self, path):
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        shapes = {i.name: i.shape for i in session.get_inputs()}
        vocabulary = session.get_outputs()[0].shape[-1]
        random = np.random.default_rng(0)
        self.requests = iter([{"pixel_values": random.standard_normal(shapes["pixel_values"], dtype=np.float32),
                               "input_ids": random.integers(4, vocabulary, shapes["input_ids"])} for _ in range(CALIBRATION_REQUESTS)])

    def get_next(self):
        return next(self.requests, None)


def products_of_activations(path):
    """Names of attention's own products, which stay in f32: quantising both sides costs more than it gains. Static quantisation has to be
    told; dynamic quantisation has MatMulConstBOnly."""
    graph = onnx.load(path).graph
    constant = {i.name for i in graph.initializer} | {o for n in graph.node if n.op_type == "Constant" for o in n.output}
    return [n.name for n in graph.node if n.op_type == "MatMul" and n.input[1] not in constant]


def quantise(kind, f32, out):
    if kind == "int8-qdq":
        # Outputs are quantised too (the default): without that the session takes most products for f32 ones.
        quantize_static(f32, out, RandomRequests(f32), quant_format=QuantFormat.QDQ, per_channel=True,
                        activation_type=QuantType.QUInt8, nodes_to_exclude=products_of_activations(f32), **WEIGHTS)
    else:
        quantize_dynamic(f32, out, per_channel=kind == "int8-pc", extra_options=dict(MatMulConstBOnly=True), **WEIGHTS)


if len(sys.argv) == 5 and sys.argv[1] == "f32":
    export(*sys.argv[2:])
elif len(sys.argv) == 4 and sys.argv[1] in ("int8", "int8-pc", "int8-qdq"):
    quantise(*sys.argv[1:])
else:
    sys.exit(__doc__)
