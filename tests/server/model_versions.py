"""Versions of a tiny model with answers that tell them apart, and a server and clients to try them on.

prepare_models() makes three models from three seeds; SEEDS says which of them is which version. An answer names a digest, and
check_answer() compares it with what that digest's model says. For swap_e2e.py and manage_e2e.py.
"""
import http.client
import json
import os
import shutil
import subprocess
import tempfile
import threading

import make_tiny_model
import server_process
from server_process import FILES, GENEROUS, RUN, TroubledServer, check, classify, good_image, multipart, same
from spoil_model import flip_a_bit, redigest, sha256

SEEDS = {1: 11, 2: 0, 3: 23}  # by version
MODELS = {}  # seed -> directory of a published model
ANSWERS = {}  # seed -> {label: score} for good.png and TEXT
DECISIONS = {}  # seed -> (label, suggestion) for them
DIGESTS = {}  # of the weights -> seed
TEXT = "今日特价"


def wait_for(condition, seconds=120, what="condition"):
    """A load has low priority: on a busy machine it takes its time."""
    server_process.wait_for(condition, seconds, what)


class SwapServer(TroubledServer):
    """On a registry of its own; with the repository's commands."""

    def __init__(self, registry, *settings, **kwargs):
        # One thread: nothing is measured here, and OpenMP's barriers are slow on a busy machine and foreign to TSan.
        super().__init__(*GENEROUS, "inference.threads=1", *settings, registry=registry, **kwargs)
        self.registry = registry

    def post(self, path, document=None, headers=None):
        body = json.dumps(document).encode() if document is not None else b""
        status, _, text = self.request("POST", "/v2/repository/" + path, body, headers)
        return status, json.loads(text)

    def load(self, version=None, name="tiny", expected=200, **parameters):
        if version:
            parameters["version"] = str(version)
        status, answer = self.post(f"models/{name}/load", {"parameters": parameters} if parameters else None)
        same(status, expected, answer)
        return answer

    def unload(self, version=None, name="tiny", expected=200):
        document = {"parameters": {"version": str(version)}} if version else None
        status, answer = self.post(f"models/{name}/unload", document)
        same(status, expected, answer)
        return answer

    def index(self, name="tiny"):
        status, list_ = self.post("index")
        same(status, 200, list_)
        return {int(x["version"]): x for x in list_ if x["name"] == name}

    def state(self, version, name="tiny"):
        return self.index(name).get(version, {"state": "absent", "reason": ""})

    def answer(self, **fields):
        status, _, body = self.audit(good_image(), TEXT, **fields)
        same(status, 200, body)
        answer = json.loads(body)
        check_answer(answer)
        return answer

    def version(self, **fields):
        return int(self.answer(**fields)["model"]["version"])

    def failures(self, reason, name="tiny"):
        return self.metrics().get(f'winnow_model_load_failures_total{{name="{name}",reason="{reason}"}}', 0)


def check_answer(answer):
    """The scores are those of the model whose digest the answer names."""
    seed = DIGESTS[answer["model"]["digest"]]
    found = {x["name"]: x["score"] for x in answer["labels"]}
    for label, score in ANSWERS[seed].items():
        check(abs(found[label] - score) < 1e-4, f"{answer['model']} says {found}, its model says {ANSWERS[seed]}")


def prepare_models():
    """One published copy (with a self test) of each seed's model, and what it answers."""
    registry = os.path.join(RUN.work, "prepared")
    os.makedirs(registry)
    for seed in SEEDS.values():
        source = os.path.join(RUN.work, f"source-{seed}")
        make_tiny_model.make(source, seed)
        subprocess.run([RUN.prune, "publish", "--model", source, "--registry", registry, "--name", f"m{seed}"], check=True,
                       capture_output=True)
        MODELS[seed] = os.path.join(registry, f"m{seed}", "1")
        reference = classify(os.path.join(FILES, "good.png"), TEXT, model=MODELS[seed])
        ANSWERS[seed] = {x["name"]: x["score"] for x in reference["labels"]}
        DECISIONS[seed] = reference["label"], reference["suggestion"]
        DIGESTS[sha256(os.path.join(MODELS[seed], "model.safetensors"))] = seed
    for a in SEEDS.values():
        for b in SEEDS.values():
            distance = max(abs(ANSWERS[a][k] - ANSWERS[b][k]) for k in ANSWERS[a])
            check(a == b or distance > 0.01, "two versions answer alike: these tests would show nothing")


def new_registry(*versions, name="tiny"):
    registry = tempfile.mkdtemp(dir=RUN.work)
    for v in versions:
        put(registry, v, name=name)
    return registry


def put(registry, version, seed=None, change=None, name="tiny"):
    """A version appears as a publisher makes it appear: by rename. change(directory) may spoil it before."""
    os.makedirs(os.path.join(registry, name), exist_ok=True)
    hidden = os.path.join(registry, name, f".publish-test-{version}")
    shutil.copytree(MODELS[SEEDS[version] if seed is None else seed], hidden)
    if change:
        change(hidden)
    os.rename(hidden, os.path.join(registry, name, str(version)))


class Load:
    """Clients that ask without a pause; every answer is kept."""

    def __init__(self, server, clients=3):
        self.server, self.answers, self.failed, self.over = server, [], [], False
        self.threads = [threading.Thread(target=self.ask) for _ in range(clients)]

    def ask(self):
        body, kind = multipart([("image", good_image()), ("text", TEXT)])
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        while not self.over:
            try:
                connection.request("POST", "/v1/audit", body, {"Content-Type": kind})
                response = connection.getresponse()
                text = response.read()
                if response.status == 200:
                    self.answers.append(json.loads(text))
                else:
                    self.failed.append(text)
            except (OSError, http.client.HTTPException) as e:
                self.failed.append(repr(e))
                return
        connection.close()

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, kind, *rest):
        self.over = True
        for t in self.threads:
            t.join()
        if kind:
            return
        check(not self.failed, f"{len(self.failed)} failed, {len(self.answers)} answered: {self.failed[:3]}")
        for a in self.answers:
            check_answer(a)

    def versions(self):
        return {int(a["model"]["version"]) for a in self.answers}


# ---- versions that must not take over ----


def other_weights(directory):
    """A model that loads and answers, but is not the one whose answers winnow.json tells."""
    shutil.copy(os.path.join(MODELS[SEEDS[3]], "model.safetensors"), directory)
    redigest(directory)


def with_link(directory):
    os.rename(os.path.join(directory, "tokenizer.json"), os.path.join(RUN.work, "tokenizer-elsewhere.json"))
    os.symlink(os.path.join(RUN.work, "tokenizer-elsewhere.json"), os.path.join(directory, "tokenizer.json"))


BAD = [(flip_a_bit, "digests"), (other_weights, "self_test"), (with_link, "open")]  # further ones: tests/hold, bad-models
