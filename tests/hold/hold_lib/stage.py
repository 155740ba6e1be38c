"""What every scenario stands on: a registry of its own with two models that answer differently, their known answers, a server.

The known answers are those of a server that holds one of the models alone and is asked one ad at a time. (That a server answers as
`winnow-prune classify` does, and the engine as transformers does, is shown elsewhere: tests/server/e2e.py, tests/engine.) Ads of which the
two models say nearly the same are left out: their answers could not tell which model computed them.
"""
import json
import os
import shutil
import subprocess
import sys
import time

from server_process import RUN, Server, TroubledServer, check, read_file, same
from spoil_model import sha256

from . import variants

NAME = "ad-audit"
TOLERANCE = 1e-3   # of a score: int8 and batches round a little
APART = 5 * TOLERANCE


class Stage:
    def __init__(self, options, work):
        self.options, self.work = options, work
        self.registry = os.path.join(work, "registry")
        self.ads, self.known = os.path.join(work, "ads"), os.path.join(work, "known.json")
        self.sources = {}   # digest -> model directory
        self.published = {}  # version -> digest, of those that have gone again too
        self.children = []  # processes to end when something goes wrong
        self.failed_publishes = []
        # What "flat" means. A short run on a busy machine still meets some buffers for the first time; a sanitizer keeps what was freed.
        self.flat = 0.02 if options.speed else 0.10 if RUN.slow == 1 else 10
        self.server = None

    def say(self, text):
        print(f"hold: {text}", file=sys.stderr, flush=True)

    def sleep(self, seconds):
        check(self.server.process.poll() is None, f"the server is gone: {self.server.errors()}")
        time.sleep(seconds)

    # ---- before ----

    def prepare(self):
        o = self.options
        other = o.other or os.path.join(self.work, "variant")
        if not o.other:
            variants.make_variant(o.model, other)
        for model in (o.model, other):
            self.sources[sha256(os.path.join(model, "model.safetensors"))] = model
        check(len(self.sources) == 2, f"{o.model} and {other} are the same model")
        self.write_known_answers()
        self.new_registry()

    def new_registry(self):
        """Empty but for versions 1 and 2."""
        shutil.rmtree(self.registry, ignore_errors=True)
        self.published.clear()
        os.makedirs(self.registry)
        for digest in self.sources:
            self.publish(digest)

    def write_known_answers(self):
        with open(os.path.join(self.options.ads, "metadata.jsonl"), encoding="utf-8") as f:
            rows = [json.loads(line) for line in f if line.strip()][:self.options.limit or None]
        answers = {digest: self.ask_alone(model, rows) for digest, model in self.sources.items()}
        one, two = answers.values()
        kept = [r for r in rows if distance(one[r["file_name"]], two[r["file_name"]]) > APART]
        check(kept, "the two models answer every ad alike: nothing could be told from answers")
        os.makedirs(self.ads)
        for row in kept:
            shutil.copy(os.path.join(self.options.ads, row["file_name"]), self.ads)
        with open(os.path.join(self.ads, "metadata.jsonl"), "w", encoding="utf-8") as f:
            f.writelines(json.dumps(r, ensure_ascii=False) + "\n" for r in kept)
        with open(self.known, "w", encoding="utf-8") as f:
            json.dump({"tolerance": TOLERANCE, "answers": answers}, f, ensure_ascii=False)
        self.num_ads = len(kept)
        self.say(f"{len(kept)} of {len(rows)} ads tell the two models apart")

    def ask_alone(self, model, rows):
        out = {}
        with TroubledServer(*self.settings(), "inference.deadline=50s", "inference.max_deadline=60s", model_dir=model) as server:
            for r in rows:
                status, _, body = server.audit(read_file(self.options.ads, r["file_name"]), r["text"], assist=r.get("assist") or "")
                same(status, 200, body)
                out[r["file_name"]] = json.loads(body)
        return out

    # ---- the server ----

    def settings(self, *of_program):
        # Where speed is not judged the machine may stand still for a moment: then a line may form. --set has the last word.
        return ["log.access=", *([] if self.options.speed else ["inference.queue_capacity=256"]), *of_program, *self.options.set]

    def open_server(self, *settings, server_class=Server):
        self.server = server_class(*self.settings(*settings), registry=self.registry, name=NAME)
        return self.server

    def first_image(self):
        with open(os.path.join(self.ads, "metadata.jsonl"), encoding="utf-8") as f:
            row = json.loads(f.readline())
        return read_file(self.ads, row["file_name"]), row["text"]

    def command(self, action, version=None):
        """(status, document) of a load or unload."""
        body = json.dumps({"parameters": {"version": str(version)}}).encode() if version else b""
        status, _, text = self.server.request("POST", f"/v2/repository/models/{NAME}/{action}", body)
        return status, json.loads(text)

    def index(self):
        status, _, text = self.server.request("POST", "/v2/repository/index", b"")
        same(status, 200, text)
        return {int(x["version"]): x for x in json.loads(text) if x["name"] == NAME}

    def metric(self, name, **labels):
        inside = ",".join(f'{k}="{v}"' for k, v in {"name": NAME, **labels}.items())
        return self.server.metrics().get(f"{name}{{{inside}}}", 0)

    # ---- the registry ----

    def versions(self):
        return sorted(int(v) for v in os.listdir(os.path.join(self.registry, NAME)) if v.isdigit())

    def path(self, version):
        return os.path.join(self.registry, NAME, str(version))

    def publish_command(self, digest):
        return [RUN.prune, "publish", "--model", self.sources[digest], "--registry", self.registry, "--name", NAME]

    def publish(self, digest):
        # Whoever publishes does it elsewhere; here he gets what load and server leave.
        out = subprocess.run(self.publish_command(digest), capture_output=True,
                             preexec_fn=lambda: os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0)))
        check(out.returncode == 0, out.stderr.decode())
        self.note_versions()

    def note_versions(self):
        for v in self.versions():
            try:
                self.published[v] = json.loads(read_file(self.path(v), "winnow.json"))["files"]["model.safetensors"]
            except (OSError, ValueError):
                pass  # not whole: whoever looks for that says so

    def end_children(self):
        for p in self.children:
            if p.poll() is None:
                p.kill()
                p.wait()
        if self.server and self.server.process.poll() is None:
            self.server.process.kill()
            self.server.process.wait()


def distance(one, two):
    a, b = ({x["name"]: x["score"] for x in answer["labels"]} for answer in (one, two))
    return max(abs(a[k] - b.get(k, 0)) for k in a)


def judge_answers(verdict, reports, published):
    """Every answer was held against what the model that it names says; and it names the model that stands under that number."""
    counts = {k: sum(r["answers"][k] for r in reports) for k in ("right", "wrong", "unknown")}
    misnamed = [f"version {v['version']} with {v['digest']}" for r in reports for v in r["answers"]["versions"]
                if published.get(int(v["version"] or 0)) != v["digest"]]
    first = next((r["answers"]["first"] for r in reports if "first" in r["answers"]), "")
    checked = sum(counts.values())
    verdict.add("answers that are not the named version's known answer", f"0 of all {checked} answers",
                f"{counts['wrong']} wrong, {counts['unknown']} unknown{': ' + first if first else ''}",
                checked > 0 and counts["right"] == checked)
    verdict.none("versions named with another model's digest", misnamed)
    verdict.figures["answers_checked"] = checked
    verdict.figures["versions_that_answered"] = len({v["version"] for r in reports for v in r["answers"]["versions"]})
