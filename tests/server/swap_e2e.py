#!/usr/bin/env python3
"""Model versions that come, go and fail while winnow-serve answers. Standard library only, over real HTTP.

  swap_e2e.py --serve PATH/winnow-serve --prune PATH/winnow-prune [--promtool PATH] [--only NAME]

Three tiny models with different answers to the same ad stand for versions, so that an answer tells which of them computed it.
WINNOW_KILLS (20) is the number of killed publishes, WINNOW_SWAPS (60) that of swaps for the memory test.
"""
import argparse
import hashlib
import http.client
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import e2e  # noqa: E402
import make_tiny_model  # noqa: E402
from e2e import GENEROUS, check, good_image, log, multipart, read_file, same  # noqa: E402

SEEDS = {1: 11, 2: 0, 3: 23}  # by version
MODELS = {}  # seed -> directory of a published model
ANSWERS = {}  # seed -> {label: score} for good.png and TEXT
DECISIONS = {}  # seed -> (label, suggestion) for them
TEXT = "今日特价"
TSAN = False


def wait_for(condition, seconds=120, what="condition"):
    """A load has low priority: on a busy machine it takes its time."""
    e2e.wait_for(condition, seconds, what)


class SwapServer(e2e.Server):
    """On a registry of its own; failed loads may be logged as errors."""

    def __init__(self, registry, *settings, name="tiny", **kwargs):
        extra = ["--registry", registry, "--set", f"model.name={name}"] + list(kwargs.pop("extra", ()))
        # One thread: nothing is measured here, and OpenMP's barriers are slow on a busy machine and foreign to TSan.
        super().__init__(*GENEROUS, "inference.threads=1", *settings, extra=extra, **kwargs)
        self.registry = registry

    def stop(self, sig=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(sig)
        code = self.process.wait(timeout=60 * e2e.SLOW)
        errors = self.errors()
        same(code, 0, errors)
        for bad in ("Sanitizer", "runtime error"):
            check(bad not in errors, errors)
        return errors

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


DIGESTS = {}  # of the weights -> seed


def check_answer(answer):
    """The scores are those of the model whose digest the answer names."""
    seed = DIGESTS[answer["model"]["digest"]]
    found = {x["name"]: x["score"] for x in answer["labels"]}
    for label, score in ANSWERS[seed].items():
        check(abs(found[label] - score) < 1e-4, f"{answer['model']} says {found}, its model says {ANSWERS[seed]}")


def sha256(path):
    with open(path, "rb") as f:
        return "sha256:" + hashlib.sha256(f.read()).hexdigest()


def prepare_models():
    """One published copy (with a self test) of each seed's model, and what it answers."""
    registry = os.path.join(e2e.WORK, "prepared")
    os.makedirs(registry)
    for seed in SEEDS.values():
        source = os.path.join(e2e.WORK, f"source-{seed}")
        make_tiny_model.make(source, seed)
        subprocess.run([e2e.ARGS.prune, "publish", "--model", source, "--registry", registry, "--name", f"m{seed}"], check=True,
                       capture_output=True)
        MODELS[seed] = os.path.join(registry, f"m{seed}", "1")
        reference = e2e.classify(os.path.join(e2e.FILES, "good.png"), TEXT, model=MODELS[seed])
        ANSWERS[seed] = {x["name"]: x["score"] for x in reference["labels"]}
        DECISIONS[seed] = reference["label"], reference["suggestion"]
        DIGESTS[sha256(os.path.join(MODELS[seed], "model.safetensors"))] = seed
    for a in SEEDS.values():
        for b in SEEDS.values():
            distance = max(abs(ANSWERS[a][k] - ANSWERS[b][k]) for k in ANSWERS[a])
            check(a == b or distance > 0.01, "two versions answer alike: these tests would show nothing")


def new_registry(*versions, name="tiny"):
    registry = tempfile.mkdtemp(dir=e2e.WORK)
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


def edit_manifest(directory, edit):
    path = os.path.join(directory, "winnow.json")
    with open(path, encoding="utf-8") as f:
        manifest = json.load(f)
    edit(manifest)
    with open(path, "w", encoding="utf-8") as f:
        json.dump(manifest, f, ensure_ascii=False)


def redigest(directory):
    """winnow.json says what the files are now: the publisher itself was wrong."""
    def edit(manifest):
        for name in manifest["files"]:
            manifest["files"][name] = sha256(os.path.join(directory, name))
    edit_manifest(directory, edit)


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


# ---- swapping ----

def test_swaps_under_load_fail_no_request():
    registry = new_registry(1)
    with SwapServer(registry, "inference.queue_capacity=64", "inference.max_batch=2") as server:
        with Load(server) as load:
            wait_for(lambda: len(load.answers) > 10, what="answers")
            put(registry, 2)
            wait_for(lambda: server.version() == 2, what="version 2 takes over")
            put(registry, 3)
            wait_for(lambda: server.version() == 3, what="version 3 takes over")
            for i in range(9):
                v = (1, 2, 3)[i % 3]
                same(server.load(v), {"name": "tiny", "version": str(v), "state": "READY"}, "answer")
                same(server.version(), v, "right after the load")
                check(server.state(v)["state"] == "READY")
        same(load.versions(), {1, 2, 3}, "versions that answered")
        m = server.settled_metrics()
        same(m['winnow_model_swaps_total{name="tiny",result="done"}'], 11, "swaps")
        same(m['winnow_model_swaps_total{name="tiny",result="failed"}'], 0, "failed swaps")
        lines = {x["version"] for x in server.access_log() if x["path"] == "/v1/audit"}
        same(lines, {"1", "2", "3"}, "versions in the access log")
        log(f"     {len(load.answers)} answers")


def test_two_instances_swap_together():
    registry = new_registry(1)
    with SwapServer(registry, "inference.instances=2", "inference.queue_capacity=64") as server:
        with Load(server, 4) as load:
            for i in range(4):
                if i == 1:
                    put(registry, 2)
                server.load(1 + i % 2)
        same(load.versions(), {1, 2}, "versions")


def test_polling_alone_notices_too():
    registry = new_registry(1)
    with SwapServer(registry, "model.watch=false", "model.poll_interval=100ms") as server:
        put(registry, 2)
        wait_for(lambda: server.version() == 2, what="version 2 takes over")
    registry = new_registry(1)
    with SwapServer(registry, "model.poll_interval=1h") as server:  # inotify alone
        put(registry, 2)
        wait_for(lambda: server.version() == 2, what="version 2 takes over")


def test_in_flight_requests_finish_on_the_old_version_which_is_then_freed():
    registry = new_registry(1)
    with SwapServer(registry, "inference.threads=1" if TSAN else "inference.threads=2") as server:
        put(registry, 2)
        wait_for(lambda: "model tiny version 1: freed" in server.errors(), what="version 1 is freed")
        same(server.version(), 2, "version")
        m = server.metrics()
        same([k for k in m if k.startswith("winnow_model_bytes")], ['winnow_model_bytes{name="tiny",version="2"}'], "loaded")
        same(m["winnow_models_memory_bytes"], m['winnow_model_bytes{name="tiny",version="2"}'], "memory")


# ---- versions that must not take over ----

def truncate(directory):
    path = os.path.join(directory, "model.safetensors")
    os.truncate(path, os.path.getsize(path) // 2)


def flip_a_bit(directory):
    with open(os.path.join(directory, "model.safetensors"), "r+b") as f:
        f.seek(-3, os.SEEK_END)
        byte = f.read(1)[0]
        f.seek(-3, os.SEEK_END)
        f.write(bytes([byte ^ 1]))


def wrong_shape(directory):
    path = os.path.join(directory, "config.json")
    with open(path, encoding="utf-8") as f:
        config = json.load(f)
    config["vision_config"]["intermediate_size"] += 8
    with open(path, "w", encoding="utf-8") as f:
        json.dump(config, f)
    redigest(directory)


def cut_but_digests_fit(directory):
    truncate(directory)
    redigest(directory)


def not_a_number(directory):
    path = os.path.join(directory, "model.safetensors")
    with open(path, "r+b") as f:
        f.seek(-4, os.SEEK_END)
        f.write(b"\x00\x00\xc0\x7f")
    redigest(directory)


def wrong_self_test(directory):
    def edit(manifest):
        p = manifest["self_test"]["probabilities"]
        p[0], p[1] = p[1] + 0.05, p[0] - 0.05
        total = sum(max(x, 0) for x in p)
        manifest["self_test"]["probabilities"] = [max(x, 0) / total for x in p]
    edit_manifest(directory, edit)


def other_weights(directory):
    """A model that loads and answers, but is not the one whose answers winnow.json tells."""
    shutil.copy(os.path.join(MODELS[SEEDS[3]], "model.safetensors"), directory)
    redigest(directory)


def with_link(directory):
    os.rename(os.path.join(directory, "tokenizer.json"), os.path.join(e2e.WORK, "tokenizer-elsewhere.json"))
    os.symlink(os.path.join(e2e.WORK, "tokenizer-elsewhere.json"), os.path.join(directory, "tokenizer.json"))


def no_json(directory):
    with open(os.path.join(directory, "winnow.json"), "w", encoding="utf-8") as f:
        f.write('{"format": 1, "name": "tiny"')


def names_no_files(directory):
    edit_manifest(directory, lambda m: m.pop("files"))


BAD = [(truncate, "digests"), (flip_a_bit, "digests"), (wrong_shape, "content"), (cut_but_digests_fit, "content"),
       (not_a_number, "content"), (wrong_self_test, "self_test"), (other_weights, "self_test"), (with_link, "open"),
       (no_json, "digests"), (names_no_files, "digests")]


def test_bad_versions_never_take_over():
    registry = new_registry(1)
    with SwapServer(registry, "inference.queue_capacity=64") as server:
        with Load(server, 2) as load:
            for i, (spoil, step) in enumerate(BAD):
                before = server.failures(step)
                put(registry, 10 + i, seed=SEEDS[2], change=spoil)
                wait_for(lambda: server.failures(step) > before, what=f"{spoil.__name__} counts as {step}")
                state = server.state(10 + i)
                same(state["state"], "UNAVAILABLE", spoil.__name__)
                check("/proc/" not in state["reason"], state)
                same(server.version(), 1, spoil.__name__)
                status, answer = server.post("models/tiny/load", {"parameters": {"version": str(10 + i)}})
                same((status, answer["reason"]), (409, "load_failed"), spoil.__name__)
                check("/proc/" not in answer["error"] and registry not in answer["error"], answer)
        same(load.versions(), {1}, "versions that answered")
        errors = server.errors()
        for step in {s for _, s in BAD}:
            check(f" ERROR model tiny version" in errors and f": {step}: " in errors, errors)
        check("version 1 stays" in errors, errors)
        # Tried once each (and once by command), not in circles.
        time.sleep(0.5)
        failed = server.metrics()['winnow_model_swaps_total{name="tiny",result="failed"}']
        same(failed, 2 * len(BAD), "attempts")
        # A good one still takes over, and a failed one that is repaired in place as well.
        put(registry, 50, seed=SEEDS[2])
        wait_for(lambda: server.version() == 50, what="the good one takes over")
        put(registry, 51, seed=SEEDS[3], change=flip_a_bit)
        wait_for(lambda: "model.safetensors" in server.state(51)["reason"], what="51 is refused")
        shutil.copy(os.path.join(MODELS[SEEDS[3]], "model.safetensors"), os.path.join(registry, "tiny", "51"))
        wait_for(lambda: server.version() == 51, what="the repaired one takes over")


def test_half_copied_version_waits_until_it_is_whole():
    registry = new_registry(1)
    with SwapServer(registry, "model.poll_interval=50ms", "inference.queue_capacity=64") as server:
        with Load(server, 1) as load:
            target = os.path.join(registry, "tiny", "2")
            os.makedirs(target)
            names = sorted(os.listdir(MODELS[SEEDS[2]]))  # winnow.json last, as `cp` takes them
            same(names[-1], "winnow.json", "order")
            for name in names:
                data = read_file(MODELS[SEEDS[2]], name)
                with open(os.path.join(target, name), "wb") as f:
                    for start in range(0, len(data), max(1, len(data) // 3)):
                        f.write(data[start:start + max(1, len(data) // 3)])
                        f.flush()
                        time.sleep(0.05)
                if name != "winnow.json":
                    same(server.version(), 1, f"after {name}")
                    check(server.state(2)["reason"] in ("winnow.json is missing: not complete yet", ), server.state(2))
            wait_for(lambda: server.version() == 2, what="the whole one takes over")
        same(load.versions(), {1, 2}, "versions")
        # The other order: winnow.json first. Its digests do not fit before the last byte is there.
        target = os.path.join(registry, "tiny", "3")
        os.makedirs(target)
        for name in ["winnow.json"] + names[:-1]:
            shutil.copy(os.path.join(MODELS[SEEDS[3]], name), target)
            if name != names[-2]:
                time.sleep(0.35)
                same(server.version(), 2, f"after {name}")
        wait_for(lambda: server.version() == 3, what="the whole one takes over")


def test_version_changed_while_it_is_loaded():
    registry = new_registry(1)
    big = os.path.join(e2e.WORK, "big")
    make_tiny_model.make(big, seed=5, wide=24, name="tiny")
    seen = set()
    with SwapServer(registry, "model.poll_interval=1h") as server:
        def touch(path):
            os.utime(os.path.join(path, "model.safetensors"))

        def cut(path):
            os.truncate(os.path.join(path, "model.safetensors"), 100)

        def replace(path):
            os.rename(path, path + ".old")
            shutil.copytree(MODELS[SEEDS[2]], path)
            flip_a_bit(path)

        for number, meddle in ((20, touch), (21, cut), (22, replace), (23, shutil.rmtree)):
            hidden = os.path.join(registry, "tiny", f".publish-{number}")
            shutil.copytree(big, hidden)
            path = os.path.join(registry, "tiny", str(number))
            before = server.metrics()['winnow_model_swaps_total{name="tiny",result="failed"}']
            os.rename(hidden, path)
            wait_for(lambda: server.state(number)["state"] == "LOADING", what=f"{number} is being loaded")
            meddle(path)
            wait_for(lambda: server.metrics()['winnow_model_swaps_total{name="tiny",result="failed"}'] > before,
                     what=f"{meddle.__name__}: a failure")
            seen |= {s for s in ("digests", "content", "changed") if server.failures(s)}
            if meddle is not touch:  # that one is whole, and is right to come after its second try
                same(server.version(), 1, meddle.__name__)
            else:
                wait_for(lambda: server.state(20)["state"] == "READY", what="the touched version's second try")
                server.load(1)
            if os.path.exists(path):
                shutil.rmtree(path)
            if meddle is touch:
                same(server.load()["version"], "1", "what is left, and the policy again")
        check("changed" in seen, seen)


def test_memory_budget():
    registry = new_registry(1)
    with SwapServer(registry) as server:
        one = int(server.metrics()['winnow_model_bytes{name="tiny",version="1"}'])
    code, text = e2e.run_failing("--registry", registry, "--set", "model.name=tiny", "--listen", "0", "--set",
                                 f"model.memory_budget={one - 1}")
    same(code, 1, text)
    check("model.memory_budget has" in text and text.count("\n") == 1, text)
    with SwapServer(registry, f"model.memory_budget={one + one // 2}") as server:
        put(registry, 2)
        wait_for(lambda: "memory_budget" in server.state(2)["reason"], what="version 2 does not fit")
        same(server.failures("budget"), 1, "counted")
        same(server.version(), 1, "version")
        server.unload()
        server.load(2)  # alone it fits
        same(server.version(), 2, "version")
    with SwapServer(registry, f"model.memory_budget={2 * one + 8192}") as server:
        for i in range(12):  # each waits until the one before has left
            server.load(1 + i % 2)
            same(server.version(), 1 + i % 2, "version")


# ---- commands ----

def test_rollback_holds_until_the_policy_is_asked_again():
    registry = new_registry(1, 2)
    with SwapServer(registry) as server:
        same(server.version(), 2, "latest")
        server.load(1)
        same(server.version(), 1, "rolled back")
        put(registry, 3)
        time.sleep(0.6)
        same((server.version(), server.state(3)["state"]), (1, "UNAVAILABLE"), "held")
        check("not wanted" in server.state(3)["reason"], server.state(3))
        same(server.load()["version"], "3", "back to the policy")
        same(server.version(), 3, "latest again")
        # A version whose directory is gone still serves, and can be held.
        shutil.rmtree(os.path.join(registry, "tiny", "3"))
        wait_for(lambda: "removed" in server.state(3)["reason"], what="the removal is noticed")
        same((server.version(), server.state(3)["state"]), (3, "READY"), "removed")
        server.load(3)
        server.load(2)
        same(set(server.index()), {1, 2}, "index")
        server.load(3, expected=404)
        same(server.version(), 2, "version")


def test_repository_endpoints():
    registry = new_registry(1, 2)
    put(registry, 1, name="other")
    with SwapServer(registry) as server:
        index = server.post("index")[1]
        same(sorted(index, key=lambda x: (x["name"], x["version"])),
             [{"name": "other", "version": "1", "state": "UNAVAILABLE", "reason": "not loaded"},
              {"name": "tiny", "version": "1", "state": "UNAVAILABLE", "reason": "not wanted by the version policy"},
              {"name": "tiny", "version": "2", "state": "READY", "reason": ""}], "index")
        same([x["version"] for x in server.post("index", {"ready": True})[1]], ["2"], "ready only")
        check("model_repository" in json.loads(server.request("GET", "/v2")[2])["extensions"])
        # Another model of the registry comes and goes by command.
        status = lambda **fields: server.audit(good_image(), TEXT, **fields)[0]  # noqa: E731
        same(status(model="other"), 404, "not loaded")
        server.load(name="other")
        same(server.answer(model="other")["model"]["name"], "other", "model")
        same(server.unload(name="other"), {"name": "other", "state": "UNAVAILABLE"}, "unload")
        same(status(model="other"), 503, "unloaded")
        same(json.loads(server.request("GET", "/v2/health/ready")[2]), {"ready": True}, "ready")
        server.unload()
        same(server.request("GET", "/v2/health/ready")[0], 503, "ready without a model")
        same(status(), 503, "audit without a model")
        server.load()
        same(server.version(), 2, "back")
        # What is refused.
        for path, document, code, reason in (
                ("models/absent/load", None, 404, "unknown_model"), ("models/absent/unload", None, 404, "unknown_model"),
                ("models/tiny/load", {"parameters": {"version": "9"}}, 404, "unknown_model"),
                ("models/tiny/load", {"parameters": {"version": "x"}}, 400, "bad_field"),
                ("models/tiny/load", {"parameters": {"versoin": "1"}}, 400, "unknown_field"),
                ("models/tiny/load", {"parameter": {}}, 400, "unknown_field"),
                ("models/tiny/load", {"parameters": []}, 400, "bad_field"), ("models/tiny/load", [], 400, "bad_field"),
                ("models/tiny/unload", {"parameters": {"version": "2"}}, 409, "load_failed"),
                ("models/tiny/unload", {"parameters": {"version": "1"}}, 404, "unknown_model"),
                ("index", {"ready": 1}, 400, "bad_field"), ("models/..%2fetc/load", None, 404, "not_found"),
                ("models/tiny/reload", None, 404, "not_found")):
            code_, answer = server.post(path, document)
            same((code_, answer["reason"]), (code, reason), f"{path} {document}")
        same(server.request("POST", "/v2/repository/index", b"{")[0], 400, "broken JSON")
        same(server.request("POST", "/v2/repository/index", b" " * 70000)[0], 413, "large body")
        same(server.request("GET", "/v2/repository/index")[0], 405, "GET")
        same(server.version(), 2, "still")
    with e2e.Server(*GENEROUS, model=MODELS[SEEDS[1]]) as server:
        status, _, text = server.request("POST", "/v2/repository/models/m11/load", b"")
        same((status, json.loads(text)["reason"]), (409, "load_failed"), text)
        same(json.loads(server.request("POST", "/v2/repository/index", b"")[2])[0]["state"], "READY", "index of one directory")


def test_admin_key():
    keys = {"WINNOW_ADMIN_KEY": "admin-key-00000001", "WINNOW_INFERENCE_KEY": "inference-key-0001"}
    with SwapServer(new_registry(1), env=keys) as server:
        def status(key):
            return server.post("index", headers={"X-Api-Key": key} if key else None)[0]
        same(status(None), 401, "no key")
        same(status("inference-key-0001"), 403, "inference key")
        same(status("admin-key-00000001"), 200, "admin key")
        same(server.request("GET", "/v2/models/tiny", headers={"X-Api-Key": "admin-key-00000001"})[0], 403, "admin key elsewhere")


# ---- several models ----

def test_models_and_versions_side_by_side():
    registry = new_registry(1, 2, 3)
    put(registry, 1, name="second")
    put(registry, 2, name="third")
    with SwapServer(registry, "model.version=1,3", "model.others=[second, third=2]") as server:
        same(server.version(), 3, "the largest answers")
        same(server.version(model="tiny/1"), 1, "the other by number")
        same(server.version(model="tiny"), 3, "by name")
        same(server.answer(model="second")["model"]["name"], "second", "second")
        same(server.answer(model="third/2")["model"]["name"], "third", "third")
        for model in ("tiny/2", "fourth", "second/2"):
            same(server.audit(good_image(), TEXT, model=model)[0], 404, model)
        same(server.audit(good_image(), TEXT, model="tiny/x")[0], 400, "tiny/x")
        for path, code in (("tiny", 200), ("tiny/versions/1", 200), ("tiny/versions/3/ready", 200), ("tiny/versions/2", 404),
                           ("second/versions/1", 200), ("third", 200), ("fourth", 404)):
            status, _, text = server.request("GET", "/v2/models/" + path)
            same(status, code, path)
            if status == 200 and "ready" not in path:
                same(json.loads(text)["name"], path.split("/")[0], path)
        body = server.request("GET", "/metrics")[2].decode()
        check('name="tiny",version="1"' in body and 'role="loaded"' in body and 'name="third"' in body, body)
        put(registry, 2, name="second")
        wait_for(lambda: server.version(model="second") == 2, what="second follows the latest")
        same(server.version(), 3, "undisturbed")
        server.unload(1)
        same(server.audit(good_image(), TEXT, model="tiny/1")[0], 404, "unloaded version")
        same(server.unload(3, expected=409)["reason"], "load_failed", "the one that answers")
    registry = new_registry(1, 2)
    with SwapServer(registry, "model.version=1") as server:
        put(registry, 3)
        time.sleep(0.5)
        same(server.version(), 1, "pinned")


def test_start_serves_an_older_version_when_the_latest_is_bad():
    registry = new_registry(1)
    put(registry, 2, change=flip_a_bit)
    with SwapServer(registry) as server:
        same(server.version(), 1, "version")
        check("version 1 serves instead" in server.errors(), server.errors())
        check("model.safetensors" in server.state(2)["reason"], server.state(2))


# ---- trials ----

def canary(server, result):
    return next((v for k, v in server.metrics().items() if k.startswith("winnow_canary_requests{") and f'result="{result}"' in k), 0)


def ended(server, result):
    return server.metrics().get(f'winnow_canary_ended_total{{name="tiny",result="{result}"}}', 0)


def test_canary_answers_its_share():
    registry = new_registry(1, 2)
    with SwapServer(registry, "model.version=1", "canary.automatic=off") as server:
        same(server.load(2, percent=20)["version"], "1", "the one that answers")
        same(server.state(2), {"name": "tiny", "version": "2", "state": "READY",
                               "reason": "on trial beside the version that answers"}, "index")
        versions = [server.version() for _ in range(100)]
        same((versions.count(1), versions.count(2)), (80, 20), "shares")
        same(server.version(model="tiny/1"), 1, "by number")
        wait_for(lambda: canary(server, "agreed") + canary(server, "disagreed") + canary(server, "not_compared") == 20,
                 what="every request of the share is compared or counted as not")
        result = "agreed" if DECISIONS[SEEDS[1]] == DECISIONS[SEEDS[2]] else "disagreed"
        check(canary(server, result) > 0, f"no request {result}")
        same(canary(server, "disagreed" if result == "agreed" else "agreed"), 0, "the other result")
        medians = [v for k, v in server.metrics().items() if k.startswith("winnow_canary_median_seconds")]
        check(len(medians) == 2 and min(medians) > 0, medians)
        if e2e.ARGS.promtool:
            out = subprocess.run([e2e.ARGS.promtool, "check", "metrics"], input=server.request("GET", "/metrics")[2],
                                 capture_output=True)
            check(out.returncode == 0 and not out.stderr, out.stderr.decode())
        same(server.load(2)["version"], "2", "promoted")
        same({server.version() for _ in range(10)}, {2}, "all")
        same((ended(server, "promoted"), ended(server, "taken_back")), (1, 0), "ended")
        # Another one, taken back; and what cannot be tried.
        server.load(1, percent=50, mode="canary")
        same({server.version() for _ in range(10)}, {1, 2}, "half")
        same(server.unload(1)["version"], "2", "taken back")
        same({server.version() for _ in range(10)}, {2}, "all")
        same(ended(server, "taken_back"), 1, "taken back")
        check("by command" in server.state(1)["reason"], server.state(1))
        put(registry, 7, seed=SEEDS[3], change=flip_a_bit)
        for parameters, code in (({"version": "7", "percent": 5}, 409), ({"version": "2", "percent": 5}, 409),
                                 ({"version": "9", "percent": 5}, 404), ({"version": "1", "percent": 0}, 400),
                                 ({"version": "1", "percent": 101}, 400), ({"version": "1", "percent": "x"}, 400),
                                 ({"percent": 5}, 400), ({"version": "1", "mode": "shadow"}, 400),
                                 ({"version": "1", "percent": 5, "mode": "dark"}, 400)):
            same(server.post("models/tiny/load", {"parameters": parameters})[0], code, parameters)
        same({server.version() for _ in range(10)}, {2}, "undisturbed")


def test_shadow_answers_nobody():
    registry = new_registry(1, 2)
    with SwapServer(registry, "model.version=1", "canary.automatic=off", "canary.start=[\"tiny/2:100:shadow\"]",
                    "inference.queue_capacity=64") as server:
        with Load(server, 2) as load:
            wait_for(lambda: canary(server, "agreed") + canary(server, "disagreed") >= 5, what="comparisons")
        same(load.versions(), {1}, "versions that answered")
        check(canary(server, "selected") >= len(load.answers), "all are selected")
        server.unload(2)
        wait_for(lambda: "model tiny version 2: freed" in server.errors(), what="the shadow is freed")
        same(server.version(), 1, "version")


def test_rules_promote_and_take_back():
    other = next(v for v in (2, 3) if DECISIONS[SEEDS[v]] != DECISIONS[SEEDS[1]])
    registry = new_registry(1)
    put(registry, 2, seed=SEEDS[other])
    put(registry, 3, seed=SEEDS[1])  # says what version 1 says
    with SwapServer(registry, "model.version=1", "canary.automatic=both", "canary.min_requests=10", "canary.min_agreement=0.9",
                    "canary.max_latency_ratio=0", "inference.queue_capacity=64") as server:
        with Load(server, 1) as load:
            server.load(2, percent=50, mode="shadow")
            wait_for(lambda: ended(server, "taken_back") == 1, what="the one that disagrees is taken back")
            same(server.version(), 1, "version")
            check("agreement 0.0000" in server.state(2)["reason"], server.state(2))
            server.load(3, percent=50)
            wait_for(lambda: ended(server, "promoted") == 1, what="the one that agrees is promoted")
            same(server.version(), 3, "version")
        same(load.versions(), {1, 3}, "versions that answered")


# ---- publishers that die ----

def test_killed_publishes_leave_whole_versions_only():
    rounds = int(os.environ.get("WINNOW_KILLS", "20"))
    registry = new_registry(1)
    source, took, generator = os.path.join(e2e.WORK, f"source-{SEEDS[2]}"), 0.2, random.Random(7)
    killed = 0
    with SwapServer(registry, "inference.queue_capacity=64") as server:
        with Load(server, 1):
            for i in range(rounds):
                start = time.monotonic()
                p = subprocess.Popen([e2e.ARGS.prune, "publish", "--model", source, "--registry", registry, "--name", "tiny"],
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                try:
                    # The first runs to its end and says how long that takes; most die in its second half, where it writes.
                    p.wait(timeout=None if i == 0 else took * generator.uniform(0.3, 1.05))
                    took = max(0.01, min(took, time.monotonic() - start)) if i else time.monotonic() - start
                except subprocess.TimeoutExpired:
                    p.kill()
                    p.wait()
                killed += p.returncode < 0
                for v in os.listdir(os.path.join(registry, "tiny")):
                    if v.isdigit():
                        directory = os.path.join(registry, "tiny", v)
                        manifest = json.loads(read_file(directory, "winnow.json"))
                        same(sorted(os.listdir(directory)), sorted(list(manifest["files"]) + ["winnow.json"]), directory)
                        for name, digest in manifest["files"].items():
                            same(sha256(os.path.join(directory, name)), digest, name)
        last = max(int(v) for v in os.listdir(os.path.join(registry, "tiny")) if v.isdigit())
        wait_for(lambda: server.version() == last, what=f"version {last} answers")
        same(server.metrics()['winnow_model_swaps_total{name="tiny",result="failed"}'], 0, "failed loads")
        check(killed >= rounds // 4, f"{killed} of {rounds} were killed")
        log(f"     {rounds} publishes, {killed} killed, {last - 1} versions")


# ---- memory ----

def resident(server):
    return int(read_file("/proc", str(server.process.pid), "statm").split()[1]) * os.sysconf("SC_PAGESIZE")


def test_memory_is_flat_after_many_swaps():
    swaps = int(os.environ.get("WINNOW_SWAPS", "60"))
    registry = tempfile.mkdtemp(dir=e2e.WORK)
    for v in (1, 2):
        make_tiny_model.make(os.path.join(registry, "tiny", str(v)), seed=v, wide=6)
    size = os.path.getsize(os.path.join(registry, "tiny", "1", "model.safetensors"))
    with SwapServer(registry) as server:
        sizes = []
        for i in range(swaps):
            server.load(1 + i % 2)
            status, _, text = server.audit(good_image(), TEXT)
            same((status, json.loads(text)["model"]["version"]), (200, str(1 + i % 2)), text)
            wait_for(lambda: server.errors().count(": freed") > i, what="the one before is freed")
            sizes.append(resident(server))
        settled, last = max(sizes[swaps // 3:swaps // 2]), max(sizes[-swaps // 6:])
        log(f"     {swaps} swaps of {size / 1e6:.1f} MB of weights: {sizes[0] / 1e6:.1f}, {settled / 1e6:.1f}, {last / 1e6:.1f} MB resident")
        # One leaked model in half of the swaps would be many times this.
        check(e2e.SLOW > 1 or last <= settled + 2 * size, sizes)


def main():
    global TSAN
    ap = argparse.ArgumentParser()
    ap.add_argument("--serve", required=True)
    ap.add_argument("--prune", required=True)
    ap.add_argument("--promtool", default="")
    ap.add_argument("--only", default="")
    e2e.ARGS = ap.parse_args()
    with open(e2e.ARGS.serve, "rb") as f:
        binary = f.read()
    TSAN = b"__tsan_init" in binary
    e2e.SLOW = 4 if b"__asan_init" in binary or b"__tsan_init" in binary else 1
    e2e.WORK = tempfile.mkdtemp(prefix="winnow-swap-")
    try:
        prepare_models()
        failed = 0
        for name, test in list(globals().items()):
            if not name.startswith("test_") or e2e.ARGS.only not in name:
                continue
            start = time.monotonic()
            try:
                test()
                log(f"ok   {name} ({time.monotonic() - start:.1f} s)")
            except Exception:  # a test's failure, whatever it is, must not hide the others
                failed += 1
                log(f"FAIL {name}\n{traceback.format_exc()}")
        return 1 if failed else 0
    finally:
        shutil.rmtree(e2e.WORK)


if __name__ == "__main__":
    sys.exit(main())
