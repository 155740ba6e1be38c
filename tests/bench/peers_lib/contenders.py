"""The variants at work: what a turn of each is.

Both kinds have begin(), which may raise ChildError; turn(count), `count` requests timed behind WARM_UP untimed ones; end(). A turn is
reduced to its median, p99 and least time, since that is what `winnow-prune bench` says, and everybody is treated alike."""
import json
import os
import statistics
import time

from . import child
from . import logits

SETTLE = 0.3        # seconds: what spins behind a request stops (ONNX Runtime's threads within 50 ms), and the clock recovers
IDLE_MS = 100       # of processor time between turns: more is no after-spin
GB = 1e9
# Memory to ask for before something is loaded, of the checkpoint's f32 bytes. Generous: a file's copy, weights and packed weights.
BASE, TIMES = 0.6 * GB, 3


class Unavailable(Exception):
    """Cannot be had here, which is no failure."""


def p99(times):
    """Nearest rank, as winnow-prune bench has it."""
    return sorted(times)[(99 * len(times) + 99) // 100 - 1]


def available_bytes():
    with open("/proc/meminfo", encoding="ascii") as f:
        return next(1024 * int(line.split()[1]) for line in f if line.startswith("MemAvailable:"))


class Contender:
    def __init__(self, variant):
        self.variant, self.name = variant, variant.name
        self.turns, self.cosine, self.rss, self.versions = [], None, None, {}
        self.choices = ""           # what it settled for by itself, for the table
        self.remarks = []           # what readers of its figures must know
        self.failed = self.missing = None
        self.resident = True        # loaded once, not for each turn

    def takes_part(self):
        return not self.failed and not self.missing

    def begin(self):
        pass

    def end(self):
        pass


class Winnow(Contender):
    """A process a turn: `winnow-prune bench` loads the model, runs it warm, and measures the matmul peak behind its requests."""

    def __init__(self, variant, program, work, threads):
        super().__init__(variant)
        self.program, self.work, self.threads = program, work, threads

    def begin(self):
        try:
            self.cosine = logits.of_winnow(self.program, self.work, self.variant.precision)
        except child.ChildError as e:
            self.remarks.append(f"no cosine: {e}")

    def turn(self, count):
        words = [self.program, "bench", "--model", self.work.path(self.work.relative("model")), "--precision", self.variant.precision,
                 "--tokens", str(self.work.tokens), "--threads", str(self.threads), "--runs", str(count), "--json"]
        said = json.loads(child.run(self.name, words, self.work.log(self.name)))
        self.rss = max(self.rss or 0, said["peak_rss_bytes"])
        self.versions = {"oneDNN": f"{said['onednn']} ({said['onednn_isa']})", "kernels": said["kernels"]}
        return {key: said[key] for key in ("median_ms", "p99_ms", "min_ms", "peak_gflops")}


class Peer(Contender):
    """A worker (worker.py) that stays loaded between turns; when memory is short it is loaded for each turn."""

    def __init__(self, variant, work, threads):
        super().__init__(variant)
        self.work, self.threads = work, threads
        self.worker = None

    def start(self):
        v, work = self.variant, self.work
        words = work.script("worker.py", v.family, work.inner(work.relative(v.file)), "--precision", v.precision,
                            "--request", work.inner(work.relative("request")), "--threads", str(self.threads))
        self.worker = child.Child(self.name, words, work.log(self.name))
        ready = self.worker.answer()
        if "unavailable" in ready:
            raise Unavailable(ready["unavailable"])
        self.cosine, self.rss, self.versions = ready["cosine"], ready["peak_rss_bytes"], ready["versions"]
        self.choices, self.remarks = ready["choices"], ready["remarks"]

    def begin(self):
        """Loads it and decides whether it stays: there must be room for another like it, or for winnow, beside it."""
        need, there = TIMES * self.work.weight_bytes() + BASE, available_bytes()
        if there < need:
            raise child.ChildError(f"{self.name}: needs about {need / GB:.1f} GB of memory, {there / GB:.1f} GB are available")
        self.start()
        if available_bytes() < need:
            self.resident = False
            self.end()

    def turn(self, count):
        if not self.worker:
            self.start()
        said = self.worker.ask(f"run {count}")
        times = said["times_ms"]
        if len(times) != count:
            raise child.ChildError(f"{self.name}: found {len(times)} times, expected {count}")
        if said["idle_cpu_ms"] > IDLE_MS:
            self.remarks = [f"took {said['idle_cpu_ms']:.0f} ms of processor time between two turns: the others' figures suffer"]
        if not self.resident:
            self.end()
        return {"median_ms": statistics.median(times), "p99_ms": p99(times), "min_ms": min(times), "times_ms": times,
                "idle_cpu_ms": said["idle_cpu_ms"]}

    def end(self):
        if self.worker:
            self.worker.end()
            self.worker = None


def settle():
    """Behind a turn."""
    time.sleep(SETTLE)
