"""What is made once and kept in the work directory:

    WORK/scripts/                 copies of what runs in the peers' Python, which may not see this repository
    WORK/SCALE/model/             the checkpoint; one that is there is taken as it is
    WORK/SCALE/tokens-N/          request.safetensors (with PyTorch's f32 logits) and the models of ONNX Runtime's variants
    WORK/SCALE/logs/              what each program said

The peers' Python may see the directory by another name (a chroot). A file is made under another name and renamed when it is whole;
beside it FILE.made says what it was made from, and it is made anew when that is no longer so."""
import fcntl
import hashlib
import json
import os
import shlex
import shutil

from . import child

SCRIPTS = ("blip2_request.py", "make_model.py", "make_request.py", "make_onnx.py", "worker.py")


class WorkError(Exception):
    pass


class Work:
    def __init__(self, args):
        self.host, self.inside = os.path.abspath(args.work), args.work_inside or os.path.abspath(args.work)
        self.python, self.scale, self.tokens = shlex.split(args.python), args.scale, args.tokens
        self.files = {"model": f"{self.scale}/model", "request": f"{self.scale}/tokens-{self.tokens}/request.safetensors"}
        os.makedirs(self.path(f"{self.scale}/tokens-{self.tokens}"), exist_ok=True)
        self.lock()
        os.makedirs(self.path("scripts"), exist_ok=True)
        for name in SCRIPTS:
            shutil.copyfile(os.path.join(os.path.dirname(os.path.realpath(__file__)), name), self.path(f"scripts/{name}"))

    def lock(self):
        """Held until the process ends."""
        self.held = open(self.path("lock"), "a+b")
        try:
            fcntl.flock(self.held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise WorkError(f"another comparison works in {self.host}") from None

    def path(self, relative):
        return os.path.join(self.host, relative)

    def inner(self, relative):
        return os.path.join(self.inside, relative)

    def relative(self, file):
        """Of a variant's file, or "request"."""
        return self.files.get(file) or f"{self.scale}/tokens-{self.tokens}/{file}"

    def log(self, name):
        return self.path(f"{self.scale}/logs/{name}.log")

    def script(self, name, *words):
        """The command that runs it in the peers' Python."""
        return [*self.python, self.inner(f"scripts/{name}"), *words]

    def identity(self, relative):
        """A file, or what a checkpoint's directory has."""
        path = self.path(relative)
        paths = [os.path.join(path, name) for name in sorted(os.listdir(path))] if os.path.isdir(path) else [path]
        stats = [(os.path.basename(p), os.stat(p)) for p in paths]
        return [[name, s.st_size, s.st_mtime_ns] for name, s in stats]

    def origin(self, script, words, inputs):
        with open(self.path(f"scripts/{script}"), "rb") as f:
            digest = hashlib.sha256(f.read()).hexdigest()
        return {"script": digest, "words": words, "inputs": [self.identity(i) for i in inputs]}

    def make(self, note, relative, script, words, inputs, why):
        """One step, unless its result is there. words: behind the script; {out} is the result, {0}, {1}, ... the inputs."""
        origin, made = self.origin(script, words, inputs), self.path(relative + ".made")
        if os.path.exists(self.path(relative)) and os.path.exists(made):
            with open(made, encoding="utf-8") as f:
                if f.read() == json.dumps(origin):
                    return
        part = relative + ".part"
        self.remove(part)
        note(why)
        places = [self.inner(i) for i in inputs]
        child.run(os.path.basename(relative), self.script(script, *(w.format(*places, out=self.inner(part)) for w in words)),
                  self.log(os.path.basename(relative)))
        if not os.path.exists(self.path(part)):
            raise WorkError(f"{relative} was made but is not in {self.host}: is --work-inside ({self.inside}) the same directory?")
        self.remove(relative)
        os.rename(self.path(part), self.path(relative))
        with open(made, "w", encoding="utf-8") as f:
            f.write(json.dumps(origin))

    def remove(self, relative):
        path = self.path(relative)
        if os.path.isdir(path):
            shutil.rmtree(path)
        elif os.path.exists(path):
            os.unlink(path)

    def make_model_and_request(self, note):
        model, request = self.relative("model"), self.relative("request")
        if not os.path.exists(self.path(f"{model}/config.json")):
            self.make(note, model, "make_model.py", ["{out}", "--scale", self.scale], [], f"making the checkpoint of scale {self.scale}")
        self.make(note, request, "make_request.py", ["{0}", "{out}", "--tokens", str(self.tokens)], [model],
                  "answering the request with PyTorch in f32")

    def make_file(self, note, file):
        """The model of a variant."""
        if file == "model":
            return
        f32 = self.relative("f32.onnx")
        self.make(note, f32, "make_onnx.py", ["f32", "{0}", "{1}", "{out}"], [self.relative("model"), self.relative("request")],
                  "exporting to ONNX")
        if file != "f32.onnx":
            kind = file.removesuffix(".onnx")
            self.make(note, self.relative(file), "make_onnx.py", [kind, "{0}", "{out}"], [f32], f"quantising for ONNX Runtime: {kind}")

    def weight_bytes(self):
        path = self.path(self.relative("model"))
        return sum(os.path.getsize(os.path.join(path, name)) for name in os.listdir(path) if name.endswith(".safetensors"))
