"""swaps: a constant load in turns without and with swaps, which must cost nothing.

winnow-load asks and swaps: version 1, version 2, back to the policy (the latest), each by the server's load command. Beside it a
publisher puts a further version into the registry now and then, by turns of either model, and removes old ones; when the policy is
in force a published version takes over by itself.
"""
import json
import shutil
import statistics

from . import generator
from .companion import Companion
from .observer import Observer
from .stage import NAME, judge_answers

PUBLISH_EVERY = 10  # swaps
KEEP = 3            # published versions that stay on disk
MAX_PAIRS = 8       # of turns, should swaps be slower than --every
SETTLED_AFTER = 10  # swaps
MEMORY_SPAN = 30    # seconds, of which the least counts: the server gives a burst's memory back when it was not needed for ten


class Publisher(Companion):
    def __init__(self, stage, every):
        self.stage, self.every, self.count, self.failed = stage, every, 0, []
        super().__init__()

    def work(self):
        while not self.over.wait(self.every):
            try:
                self.publish_next()
            except (AssertionError, OSError) as e:
                self.failed.append(repr(e))

    def publish_next(self):
        digests = list(self.stage.sources)
        self.stage.publish(digests[self.count % 2])
        self.count += 1
        for old in self.stage.versions()[2:-KEEP]:  # 1 and 2 are what the commands load
            shutil.rmtree(self.stage.path(old))


def bodies():
    return [json.dumps({"parameters": {"version": v}}) for v in ("1", "2")] + ["{}"]


def swap_arguments(every):
    out = ["--swap-every", f"{every:g}s", "--swap-path", f"/v2/repository/models/{NAME}/load"]
    for b in bodies():
        out += ["--swap-body", b]
    return out


class Turns:
    """The reports of turns, and when in the observer's time the tenth swap was done."""

    def __init__(self, stage, observer, rate):
        self.stage, self.observer, self.rate = stage, observer, rate
        self.without, self.during = [], []
        self.settled_at = None
        self.publisher = None

    def done(self):
        return int(self.stage.metric("winnow_model_swaps_total", result="done"))

    def pace(self):
        """Seconds between swaps: as asked, or what the machine manages, once that is known."""
        took = [s["took_ms"] / 1e3 for r in self.during for s in r["run"]["swaps"]["list"]]
        return max(self.stage.options.every, 1.3 * statistics.median(took) if took else 0)

    def turn(self, seconds, *arguments):
        return generator.run(self.stage, self.rate, seconds, "--arrivals", "constant", *arguments)

    def pair(self, swaps):
        o = self.stage.options
        every = self.pace()
        seconds = swaps * every
        self.stage.say(f"{self.rate:.4g}/s without swaps, then with {swaps} of them ({self.done()} are done)")
        self.without.append(self.turn(min(seconds, o.without)))
        with Publisher(self.stage, PUBLISH_EVERY * every) as self.publisher:
            swapping = generator.Generator(self.stage, "--rate", f"{self.rate:.4g}", "--duration", f"{seconds + 1:g}s", "--warmup", "1s",
                                           "--arrivals", "constant", *swap_arguments(every))
            while swapping.is_running():
                if self.settled_at is None and self.done() >= SETTLED_AFTER:
                    self.settled_at = self.observer.now()
                self.stage.sleep(0.2)
            self.during.append(swapping.result())
        self.stage.failed_publishes += self.publisher.failed


def p99(latencies):
    """Of several turns: the mean of theirs, so that each counts as much."""
    found = [x["p99"] for x in latencies if x["count"]]
    return statistics.mean(found) if found else float("nan")


def judge_speed(verdict, turns):
    without = [r["run"]["latency_ms"] for r in turns.without]
    with_swaps = [r["run"]["latency_ms"] for r in turns.during]
    inside = [r["run"]["swaps"]["latency_during_ms"] for r in turns.during]
    for what, found in (("p99 in turns with swaps", with_swaps), ("p99 of requests under way during a swap", inside)):
        ratio = p99(found) / p99(without)
        verdict.add(f"{what}, to p99 in turns without", "<= 1.2",
                    f"{ratio:.3f} ({p99(found):.2f} ms to {p99(without):.2f} ms)", ratio <= 1.2, speed=True)
    verdict.figures.update(p99_without_ms=[x["p99"] for x in without], p99_with_ms=[x["p99"] for x in with_swaps],
                           p99_during_ms=[x["p99"] for x in inside])
    if any(r["run"]["generator"]["too_slow"] for r in turns.without + turns.during):
        verdict.note("winnow-load was itself late in some turn: its own lag is in the latencies.")


def judge_memory(verdict, turns, observer, ended_at, tolerance):
    if turns.settled_at is None:
        return verdict.add("RSS at the end, to RSS after the 10th swap", f"at most +{100 * tolerance:g} %", "fewer than 10 swaps", False)
    span = min(MEMORY_SPAN, (ended_at - turns.settled_at) / 2)
    observer.judge_memory(verdict, "RSS at the end, to RSS after the 10th swap", (turns.settled_at, turns.settled_at + span),
                          (ended_at - span, ended_at), tolerance)


def run(stage, verdict):
    o = stage.options
    stage.publish(next(iter(stage.sources)))  # 3: the latest is neither of the two that are loaded by number
    with stage.open_server() as server:
        rate = o.load * (o.rate or generator.find_max(stage, "constant"))
        with Observer(server) as observer:
            turns = Turns(stage, observer, rate)
            while turns.done() < o.count and len(turns.during) < MAX_PAIRS:
                left = o.count - turns.done()
                turns.pair(max(2, left - o.count // 2 if not turns.during else left))
            ended_at = observer.now()
        judge(stage, verdict, turns, observer, ended_at, rate)


def judge(stage, verdict, turns, observer, ended_at, rate):
    reports = turns.without + turns.during
    swaps = [s for r in turns.during for s in r["run"]["swaps"]["list"]]
    verdict.figures.update(rate_per_s=rate, requests=generator.total(reports, "scheduled"), swaps=turns.done(), publishes=len(stage.published),
                           swap_took_ms_median=statistics.median(s["took_ms"] for s in swaps))
    verdict.note(f"{generator.total(reports, 'scheduled')} requests at {rate:.4g}/s; a swap took {verdict.figures['swap_took_ms_median']:.0f} ms; "
                 f"{len(stage.published)} versions were published.")
    verdict.add("swaps done under load", f">= {stage.options.count}", str(turns.done()), turns.done() >= stage.options.count)
    verdict.none("swaps that failed", [f"{s['outcome']} {s.get('detail', '')}" for s in swaps if s["outcome"] != "200"])
    verdict.none("publishes that failed", stage.failed_publishes)
    verdict.none("requests that failed", generator.failures(reports))
    judge_answers(verdict, reports, stage.published)
    verdict.add("versions that answered", ">= 3", str(verdict.figures["versions_that_answered"]), verdict.figures["versions_that_answered"] >= 3)
    judge_memory(verdict, turns, observer, ended_at, stage.flat)
    verdict.none("liveness other than 200", observer.not_alive)
    judge_speed(verdict, turns)
