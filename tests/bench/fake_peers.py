#!/usr/bin/env python3
"""Stands for the peers' Python in test_peers.py:  fake_peers.py SCRIPT ARGUMENTS...

Does what the scripts of peers_lib that run there do, without their libraries: the checkpoint and its logits are a golden of the engine
(transformers' own), ONNX files are empty, and a worker claims the times it is told to. By environment:
    FAKE_TIMES     JSON, variant's file (or its precision, for PyTorch) to the milliseconds of a request; others take 100
    FAKE_TROUBLE   JSON, the same to what goes wrong: "load", "import", "turn 2", "not a number", "hang", "short", "silent"
    FAKE_PIDS      directory that gets a file by the process id of every worker
"""
import array
import json
import os
import shutil
import struct
import sys
import time

GOLDEN = os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "engine", "golden", "single")
SIZES = {"F32": 4, "I64": 8}


def tensors(path):
    with open(path, "rb") as f:
        (size,) = struct.unpack("<Q", f.read(8))
        header, data = json.loads(f.read(size)), f.read()
    return {name: (e["dtype"], e["shape"], data[slice(*e["data_offsets"])]) for name, e in header.items() if name != "__metadata__"}


def write_tensors(path, entries):
    header, at = {}, 0
    for name, (dtype, shape, data) in entries.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in entries.values()))


def make_model(out, *_):
    os.mkdir(out)
    for name in ("config.json", "model.safetensors"):
        shutil.copy(os.path.join(GOLDEN, name), out)


def make_request(model, out, *_):
    given, found = tensors(os.path.join(GOLDEN, "in.safetensors")), tensors(os.path.join(GOLDEN, "out.safetensors"))
    dtype, shape, data = found["logits"]
    given["logits"] = (dtype, [1, shape[-1]], data[-SIZES[dtype] * shape[-1]:])
    write_tensors(out, given)


def make_onnx(kind, *paths):
    if trouble(kind + ".onnx") == "make":
        sys.exit("cannot quantise\nthat model")
    open(paths[-1], "xb").close()


def setting(variable, key, default):
    return json.loads(os.environ.get(variable, "{}")).get(key, default)


def trouble(key):
    return setting("FAKE_TROUBLE", key, "")


def worker(runtime, model, *rest):
    options = dict(zip(rest[::2], rest[1::2]))
    assert sorted(options) == ["--precision", "--request", "--threads"] and os.path.exists(options["--request"]), options
    key = os.path.basename(model) if runtime == "ort" else options["--precision"]
    pids = os.environ.get("FAKE_PIDS")
    if pids:
        open(os.path.join(pids, str(os.getpid())), "wb").close()
    if trouble(key) == "load":
        print("Traceback\nMemoryError: no room", file=sys.stderr)
        sys.exit(1)
    if trouble(key) == "import":
        print(json.dumps({"unavailable": f"no module for {key}"}))
        return
    print(json.dumps({"cosine": 0.987654, "peak_rss_bytes": 123456789, "versions": {runtime: "1.2"}, "choices": "faked", "remarks": []}),
          flush=True)
    for turn, line in enumerate(sys.stdin, 1):
        word, count = line.split()
        assert word == "run"
        if trouble(key) == f"turn {turn}":
            print("out of luck", file=sys.stderr)
            os.abort()
        if trouble(key) == "hang":
            time.sleep(1000)
        ms = setting("FAKE_TIMES", key, 100)
        times = [ms] * (int(count) - (trouble(key) == "short"))
        print("oops" if trouble(key) == "not a number" else json.dumps({"times_ms": times, "idle_cpu_ms": 250 if key == "bf16" else 0}),
              flush=True)


if __name__ == "__main__":
    {"make_model.py": make_model, "make_request.py": make_request, "make_onnx.py": make_onnx,
     "worker.py": worker}[os.path.basename(sys.argv[1])](*sys.argv[2:])
