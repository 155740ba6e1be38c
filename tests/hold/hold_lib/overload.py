"""overload: several times what the server can do, for minutes; then nothing, and it must be as before.

Goodput is answers within the deadline a second. The storm comes from winnow-load over 128 connections, so a server that stopped reading
would show too. During it, and for a while after, a client of its own asks one ad after the other.
"""
import http.client
import time

from server_process import wait_for

from . import generator
from .companion import Companion
from .observer import Observer
from .stage import judge_answers

ALLOWED = {"200", "429", "504"}  # what an overloaded server may say
CONNECTIONS = 128
AFTER = 5.0                      # seconds of asking after the storm


class Prober(Companion):
    """One ad at a time, on a connection of its own, all the while: (begun, ended, status)."""

    def __init__(self, stage):
        self.stage, self.asked = stage, []
        super().__init__()

    def work(self):
        image, text = self.stage.first_image()
        while not self.over.wait(0.02):
            begun = time.monotonic()
            try:
                status = self.stage.server.audit(image, text, {"X-Deadline-Ms": str(self.stage.options.deadline_ms)})[0]
            except (OSError, http.client.HTTPException) as e:
                status = repr(e)
            self.asked.append((begun, time.monotonic(), status))

    def recovery(self, since, deadline_s):
        """Seconds from `since` until the last ad that was asked then and not answered in time had been asked; None: they never were."""
        after = [(b, e, s) for b, e, s in self.asked if b >= since]
        bad = [b for b, e, s in after if s != 200 or e - b > deadline_s]
        good_after = [b for b, _, s in after if s == 200 and (not bad or b > bad[-1])]
        return (bad[-1] - since if bad else 0.0) if good_after else None


def load(stage, rate, seconds):
    report = generator.run(stage, rate, seconds, "--arrivals", "poisson", "--connections", CONNECTIONS)
    return report, time.monotonic()


def judge(stage, verdict, calm, wild, recovery, most):
    deadline = stage.options.deadline_ms
    goodput = [r["run"]["goodput_per_s"] for r in (calm, wild)]
    admitted = wild["run"]["latency_ms"]["p99"]
    outcomes = {o["outcome"]: o["latency_ms"]["count"] for o in wild["run"]["outcomes"]}
    verdict.note(f"Highest rate {most:.4g}/s; the storm {wild['run']['scheduled_per_s']:.4g}/s: "
                 + ", ".join(f"{k} {v}" for k, v in outcomes.items()) + ".")
    share = goodput[1] / goodput[0] if goodput[0] else 0
    verdict.add("goodput in the storm, to goodput at the highest rate", ">= 90 %", f"{100 * share:.1f} % ({goodput[1]:.1f}/s to {goodput[0]:.1f}/s)",
                share >= 0.9, speed=True)
    verdict.add("p99 of the requests admitted in the storm", f"<= {1.1 * deadline:g} ms", "none" if admitted is None else f"{admitted:.1f} ms",
                admitted is not None and admitted <= 1.1 * deadline, speed=True)
    refused = sum(v for k, v in outcomes.items() if k != "200")
    verdict.add("the storm was more than the server can do: requests refused", ">= 1", str(refused), refused >= 1)
    verdict.none("outcomes that are no 200, 429 or 504", [f"{k} x {v}" for k, v in outcomes.items() if k not in ALLOWED])
    verdict.add("recovered after the storm's last answer", "within 1 s", "never" if recovery is None else f"{recovery:.2f} s",
                recovery is not None and recovery <= 1, speed=True)
    verdict.add("answers in time again after the storm", "yes", "yes" if recovery is not None else "no", recovery is not None)
    verdict.figures.update(max_rate_per_s=most, storm_per_s=wild["run"]["scheduled_per_s"], goodput_per_s=goodput, admitted_p99_ms=admitted,
                           outcomes=outcomes, recovery_s=recovery)
    judge_answers(verdict, [calm, wild], stage.published)


def judge_memory(verdict, observer, begun, ended, tolerance):
    """The middle of the storm to its end: what fills once (stacks, connections) has filled by then."""
    span = (ended - begun) / 4
    observer.judge_memory(verdict, "RSS, last quarter of the storm to its second", (begun + span, begun + 2 * span), (ended - span, ended), tolerance)


def run(stage, verdict):
    o = stage.options
    seconds = o.duration or 120
    # Where the machine's speed is unknown a short queue overflows on a fast one too; otherwise the deadline decides.
    with stage.open_server(*([] if o.speed else ["inference.queue_capacity=8"])) as server:
        most = o.rate or generator.find_max(stage, "poisson")
        stage.say(f"{most:.4g}/s, then {o.factor:g} times that for {seconds:g} s")
        calm, _ = load(stage, most, min(seconds, 30))
        with Observer(server, every=0.1) as observer, Prober(stage) as prober:
            begun = observer.now()
            wild, ended_at = load(stage, o.factor * most, seconds)
            ended = observer.now()
            stage.sleep(AFTER)
        judge(stage, verdict, calm, wild, prober.recovery(ended_at, o.deadline_ms / 1e3), most)
        judge_memory(verdict, observer, begun, ended, stage.flat)
        verdict.none("liveness other than 200", observer.not_alive)
        verdict.add("liveness was asked", ">= 5 times", f"{observer.alive} times, at most {1e3 * observer.slowest_alive_s:.0f} ms",
                    observer.alive >= 5)
        wait_for(lambda: server.metrics()["winnow_requests_in_flight"] == 0, what="nothing in flight")
        verdict.none("requests still queued afterwards", int(server.metrics()["winnow_queue_depth"]))
