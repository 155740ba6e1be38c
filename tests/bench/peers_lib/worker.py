#!/usr/bin/env python3
"""One peer that stays loaded:  worker.py ort|torch MODEL --precision f32|bf16|int8 --request FILE --threads N

Runs in the peers' Python; tests/bench/peers speaks with it, a line a time:
    it says     {"cosine": …, "peak_rss_bytes": …, "versions": {…}, "choices": "…", "remarks": […]}  when it is loaded and warm,
                {"unavailable": "why"} when this Python cannot do it, and ends
    "run N"     WARM_UP requests untimed, then N timed: {"times_ms": […], "idle_cpu_ms": …}
    the end of its input ends it, so that it cannot outlive the driver
Between turns it is blocked in a read. idle_cpu_ms is the processor time it took since its last turn all the same: the threads of ONNX
Runtime and OpenMP spin a little after a request, which is as their users have them and helps the next request, so it is left on, and
the driver pauses until it is over. What libraries print goes to stderr.

A peer has what its users would give it when they look for speed; each choice has its reason beside it.
"""
import argparse
import gc
import json
import os
import resource
import sys
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
WARM_UP = 5         # as winnow-prune bench has
TRIES = 5           # of what is only compared
SLOW_GFLOPS = 15


class Unavailable(Exception):
    pass


def make_ort(a):
    """(a function that answers the request with logits; the rest of what it says)"""
    import numpy
    import onnx     # before onnxruntime: Debian sid's libraries crash when they are loaded in the other order
    import onnxruntime as ort
    from safetensors.numpy import load_file

    options = ort.SessionOptions()
    options.intra_op_num_threads = a.threads
    options.inter_op_num_threads = 1                                                  # the graph is a chain
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL      # fuses norms, GELU, quantised products
    session = ort.InferenceSession(a.model, options, providers=["CPUExecutionProvider"])
    given = load_file(a.request)
    feed = {name: given[name] for name in ("pixel_values", "input_ids")}
    versions = {"ONNX Runtime": ort.__version__, "onnx": onnx.__version__, "numpy": numpy.__version__}
    return (lambda: session.run(["logits"], feed)[0]), {"versions": versions, "choices": "", "remarks": []}


def quantise(torch, net):
    """All linear layers, activations quantised while it runs."""
    engine = next((e for e in ("x86", "fbgemm", "onednn") if e in torch.backends.quantized.supported_engines), None)
    if not engine:
        raise Unavailable(f"this PyTorch has no quantised engine for x86 ({torch.backends.quantized.supported_engines})")
    torch.backends.quantized.engine = engine
    try:
        return torch.ao.quantization.quantize_dynamic(net, {torch.nn.Linear}, dtype=torch.qint8), f"engine {engine}"
    except AttributeError as e:     # newer versions moved it out
        raise Unavailable(str(e)) from None


def best_attention(net, answer):
    """Sets the faster one: scaled_dot_product_attention wins or loses by a factor of three on a CPU, as precision and version have it.
    The Q-Former has eager attention only."""
    fastest = {}
    for kind in ("sdpa", "eager"):
        for stack in (net.model.vision_model, net.model.language_model):
            stack.set_attn_implementation(kind)
        answer()
        fastest[kind] = min(timed(answer) for _ in range(TRIES))
    for stack in (net.model.vision_model, net.model.language_model):
        stack.set_attn_implementation(min(fastest, key=fastest.get))
    return min(fastest, key=fastest.get)


def make_torch(a):
    import torch
    import transformers
    from safetensors.torch import load_file

    import blip2_request

    torch.set_num_threads(a.threads)
    dtype = torch.bfloat16 if a.precision == "bf16" else torch.float32
    net, choices = blip2_request.load(a.model, dtype), []
    if a.precision == "int8":
        net, engine = quantise(torch, net)
        choices.append(engine)
    given = load_file(a.request)
    pixels, ids = given["pixel_values"].to(dtype), given["input_ids"]

    def answer():
        with torch.inference_mode():
            return net(pixels, ids)
    choices.append(best_attention(net, answer) + " attention")
    versions = {"PyTorch": torch.__version__, "transformers": transformers.__version__}
    return (lambda: answer().float().numpy()), {"versions": versions, "choices": ", ".join(choices), "remarks": slow_blas(torch)}


def slow_blas(torch):
    """Debian's torch without an optimised BLAS multiplies f32 matrices at 2 GFLOP/s: whoever reads the figures must know."""
    x = torch.rand(512, 512)
    x @ x
    gflops = 2e-6 * 512 ** 3 / min(timed(lambda: x @ x) for _ in range(TRIES))
    return [f"its f32 products reach {gflops:.0f} GFLOP/s: is the BLAS an optimised one?"] if gflops < SLOW_GFLOPS else []


def timed(what):
    start = time.perf_counter()
    what()
    return 1e3 * (time.perf_counter() - start)


def cosine(a, answer):
    import numpy
    from safetensors.numpy import load_file

    found, expected = (numpy.asarray(x, "f8").ravel() for x in (answer(), load_file(a.request)["logits"]))
    if not numpy.isfinite(found).all():
        sys.exit("its logits are not finite")
    return float(found @ expected / numpy.linalg.norm(found) / numpy.linalg.norm(expected))


def serve(a, say):
    answer, ready = (make_ort if a.runtime == "ort" else make_torch)(a)
    ready["cosine"] = cosine(a, answer)
    for _ in range(WARM_UP):
        answer()
    gc.collect()
    gc.freeze()         # what is loaded stays: no reason to walk through it in the middle of a request
    say({**ready, "peak_rss_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss})
    spent = time.process_time()
    for line in sys.stdin:
        word, count = line.split()
        if word != "run":
            sys.exit(f"found '{word}', expected 'run'")
        idle = time.process_time() - spent
        for _ in range(WARM_UP):
            answer()
        times = [timed(answer) for _ in range(int(count))]
        spent = time.process_time()
        say({"times_ms": times, "idle_cpu_ms": 1e3 * idle})


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("runtime", choices=("ort", "torch"))
    ap.add_argument("model")
    ap.add_argument("--precision", choices=("f32", "bf16", "int8"), required=True)
    ap.add_argument("--request", required=True)
    ap.add_argument("--threads", type=int, required=True)
    a = ap.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(a.threads)      # before the libraries are loaded; also OpenBLAS
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(what):
        print(json.dumps(what), file=answers, flush=True)
    try:
        serve(a, say)
    except (Unavailable, ImportError) as e:
        say({"unavailable": str(e)})


if __name__ == "__main__":
    main()
