"""bad-models: while version 1 answers under load, versions arrive that must never take over; then publishers are killed.

Of every bad version three things are looked at: the reason in the repository index, in the log and in the metric. That none of them
answered is in the answers themselves: every one names version 1 and is that version's known answer.
"""
import json
import os
import random
import shutil
import subprocess
import time

import make_tiny_model
from server_process import TroubledServer, check, read_file, same, wait_for
from spoil_model import SPOILED, flip_a_bit, sha256

from . import generator
from .observer import Observer
from .stage import NAME, judge_answers

PATIENCE = 120  # seconds: a load has low priority, and the machine may be busy
BIG = 24        # a model of which one load takes long enough to be disturbed
NOTICED = {"truncate": "truncated", "flip_a_bit": "bit-flipped", "wrong_shape": "wrong shape", "cut_but_digests_fit": "cut short, digests fit",
           "not_a_number": "not a number in the weights", "wrong_self_test": "failing self-test", "no_json": "winnow.json cut short",
           "names_no_files": "winnow.json without digests"}


class Bad:
    """Tries one bad version after the other and keeps what was not as it should be."""

    def __init__(self, stage, verdict, serves, first):
        self.stage, self.verdict, self.serves, self.next = stage, verdict, serves, first

    def put(self, source, spoil=None):
        """As a publisher makes a version appear: by rename. The number of the version."""
        version, self.next = self.next, self.next + 1
        hidden = os.path.join(self.stage.registry, NAME, f".publish-hold-{version}")
        shutil.copytree(source, hidden)
        if spoil:
            spoil(hidden)
        os.rename(hidden, self.stage.path(version))
        return version

    def failures(self, step):
        return self.stage.metric("winnow_model_load_failures_total", reason=step)

    def state(self, version):
        return self.stage.index().get(version, {"state": "absent", "reason": ""})

    def is_refused(self, version):
        state = self.state(version)
        return state["state"] == "UNAVAILABLE" and state["reason"] not in ("", "about to be loaded")

    def the_old_one_answers(self):
        status, _, body = self.stage.server.audit(*self.stage.first_image(), {"X-Deadline-Ms": "60000"})
        same(status, 200, body)
        same(json.loads(body)["model"]["version"], str(self.serves), "the version that answers")

    def see(self, what, version, step, disturb):
        """The criterion: the version that disturb() brings is refused at one of these steps, and the old one goes on."""
        asked = "refused, the old one serves; in index, log and metric"
        steps = (step,) if isinstance(step, str) else step
        before = {s: self.failures(s) for s in steps}
        try:
            disturb()
            wait_for(lambda: any(self.failures(s) > before[s] for s in steps), PATIENCE, "the metric")
            step = next(s for s in steps if self.failures(s) > before[s])
            wait_for(lambda: self.is_refused(version), PATIENCE, "the index")  # a version that changed is tried again first
            reason = self.state(version)["reason"]
            check("/proc/" not in reason and self.stage.registry not in reason, f"the index tells paths: {reason}")
            wait_for(lambda: f"model {NAME} version {version}: {step}: " in self.stage.server.errors(), PATIENCE, "the log")
            self.the_old_one_answers()
            self.verdict.add(what, asked, f"{step}: {reason[:90]}", True)
        except AssertionError as e:
            self.verdict.add(what, asked, str(e)[:200], False)
        finally:
            shutil.rmtree(self.stage.path(version), ignore_errors=True)


def spoiled_versions(bad, source):
    for spoil, step in SPOILED:
        before = bad.next

        def arrive():
            check(bad.put(source, spoil) == before)
        bad.see(NOTICED[spoil.__name__], before, step, arrive)


def half_copied(bad, source):
    """Copied in place by a tool that knows nothing of renames: without its winnow.json it is left alone, with it refused until whole."""
    asked = "left alone, then refused; the old one serves"
    version, bad.next = bad.next, bad.next + 1
    target = bad.stage.path(version)
    os.makedirs(target)
    try:
        for name in sorted(os.listdir(source)):
            if name not in ("winnow.json", "model.safetensors"):
                shutil.copy(os.path.join(source, name), target)
        data = read_file(source, "model.safetensors")
        with open(os.path.join(target, "model.safetensors"), "wb") as f:
            f.write(data[:len(data) // 2])
        wait_for(lambda: "not complete yet" in bad.state(version)["reason"], PATIENCE, "the index says that it is not complete")
        bad.the_old_one_answers()
        before = bad.failures("digests")
        shutil.copy(os.path.join(source, "winnow.json"), target)
        wait_for(lambda: bad.failures("digests") > before and "model.safetensors" in bad.state(version)["reason"], PATIENCE, "half a file is refused")
        bad.the_old_one_answers()
        reason = bad.state(version)["reason"][:90]
        bad.verdict.add("half-copied", asked, f"digests: {reason}", True)
    except AssertionError as e:
        bad.verdict.add("half-copied", asked, str(e)[:200], False)
    finally:
        shutil.rmtree(target, ignore_errors=True)


def replaced_during_load(bad, big, source):
    version = bad.next

    def replace():
        bad.put(big)
        path = bad.stage.path(version)
        wait_for(lambda: bad.state(version)["state"] == "LOADING", PATIENCE, "it is being loaded")
        os.rename(path, os.path.join(bad.stage.work, f"old-{version}"))
        shutil.copytree(source, path)
        flip_a_bit(path)
    bad.see("replaced during load", version, ("changed", "digests", "content", "open"), replace)


def ask(stage, rate):
    """Load until it is stopped."""
    return generator.Generator(stage, "--rate", f"{rate:.4g}", "--arrivals", "constant", "--duration", "6h", "--warmup", "0")


def refused_under_load(stage, verdict, rate, good, big):
    asking = ask(stage, rate)
    bad = Bad(stage, verdict, serves=1, first=100)
    stage.say("versions that must not take over")
    spoiled_versions(bad, good)
    half_copied(bad, good)
    replaced_during_load(bad, big, good)
    report = asking.stop()
    verdict.add("versions that answered meanwhile", "1", ", ".join(sorted({v["version"] for v in report["answers"]["versions"]})),
                {v["version"] for v in report["answers"]["versions"]} == {"1"})
    return report


def too_big(stage, verdict, rate, big):
    serves = max(stage.versions())
    bad = Bad(stage, verdict, serves, serves + 100)
    asking = ask(stage, rate)
    bad.see("too big for the memory budget", bad.next, "budget", lambda: bad.put(big))
    return asking.stop()


# ---- publishers that die ----

def broken_versions(stage):
    """Versions in the registry that are not whole."""
    out = []
    for v in stage.versions():
        try:
            manifest = json.loads(read_file(stage.path(v), "winnow.json"))
            same(sorted(os.listdir(stage.path(v))), sorted([*manifest["files"], "winnow.json"]), f"version {v}")
            for name, digest in manifest["files"].items():
                same(sha256(os.path.join(stage.path(v), name)), digest, f"version {v}: {name}")
        except (AssertionError, OSError, ValueError) as e:
            out.append(str(e))
    return out


def publish_and_kill(stage, digest, after):
    """True when it was killed; after None: it may end."""
    p = subprocess.Popen(stage.publish_command(digest), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stage.children.append(p)
    try:
        p.wait(timeout=after)
    except subprocess.TimeoutExpired:
        p.kill()
        p.wait()
    stage.children.remove(p)
    return p.returncode < 0


def killed_publishers(stage, verdict, rate):
    rounds, draw, digests = stage.options.kills, random.Random(stage.options.seed), list(stage.sources)
    stage.say(f"killing {rounds} publishers")
    asking = ask(stage, rate)
    broken, killed, took = [], 0, 0.0
    failed_before = stage.metric("winnow_model_swaps_total", result="failed")
    for i in range(rounds + 1):
        begun = time.monotonic()
        # The first runs to its end and says how long that takes; the others die anywhere up to a little beyond it.
        was_killed = publish_and_kill(stage, digests[i % 2], took * draw.uniform(0.02, 1.15) if i else None)
        if not was_killed:  # the quickest one counts: the machine is not always equally busy
            took = min(took or 1e9, time.monotonic() - begun)
        killed += was_killed
        broken += broken_versions(stage)
    stage.note_versions()
    last = max(stage.versions())
    try:
        wait_for(lambda: stage.index().get(last, {}).get("state") == "READY", PATIENCE, f"version {last} serves")
        serves = f"version {last}"
    except AssertionError as e:
        serves = str(e)
    report = asking.stop()
    verdict.add("publishers killed (kill -9) at random moments", f"{rounds} tried", f"{killed} killed, {rounds + 1 - killed} came through",
                killed >= rounds // 4)
    verdict.none("versions in the registry that are not whole, after any of them", broken)
    verdict.add("what serves afterwards", "the latest whole version", serves, serves == f"version {last}")
    verdict.none("loads that failed meanwhile", int(stage.metric("winnow_model_swaps_total", result="failed") - failed_before))
    return report


def run(stage, verdict):
    o = stage.options
    big, good = os.path.join(stage.work, "big"), os.path.join(stage.work, "good")
    make_tiny_model.make(big, seed=5, wide=BIG, name=NAME)
    os.rename(stage.path(2), good)  # published, so with a self test; what is spoiled are copies of it
    reports, not_alive = [], []
    with stage.open_server(server_class=TroubledServer) as server:
        rate = o.load * (o.rate or generator.find_max(stage, "constant"))
        with Observer(server) as observer:
            reports.append(refused_under_load(stage, verdict, rate, good, big))
            one = stage.metric("winnow_model_bytes", version="1")
            if o.kills:
                reports.append(killed_publishers(stage, verdict, rate))
        not_alive += observer.not_alive
    # Its own server: one that has room for two of the usual models, not for this.
    budget = f"model.memory_budget={int(2.5 * one)}"
    with stage.open_server(budget, server_class=TroubledServer) as server, Observer(server) as observer:
        reports.append(too_big(stage, verdict, rate, big))
    not_alive += observer.not_alive
    verdict.none(f"of {generator.total(reports, 'scheduled')} requests at {rate:.4g}/s meanwhile: failed", generator.failures(reports, o.speed))
    judge_answers(verdict, reports, stage.published)
    verdict.none("liveness other than 200", not_alive)
