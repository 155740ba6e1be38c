"""soak: most of what the server can do, for half an hour, with swaps, clients that vanish, clients that drip and requests that are none."""
from . import generator
from .observer import Observer, fewest_descriptors
from .stage import judge_answers
from .swaps import swap_arguments
from .trouble import Dripping, Malformed, Vanishing

SWAP_EVERY = 5.0         # seconds
MALFORMED = 0.05         # of all requests
VANISHING_PER_S = 2.0
DRIPPING = 16            # connections at any time
ALLOWED = {"200", "429", "504"}


def judge_flat(stage, verdict, observer, descriptors, ended, tolerance):
    """RSS from the end of the first fifth, when every kind of trouble has been met, to the last."""
    fifth = ended / 5
    spans = (fifth, 2 * fifth), (ended - fifth, ended)
    observer.judge_memory(verdict, "RSS, last fifth to second", *spans, tolerance)
    before, after = descriptors
    verdict.add("open descriptors, before anybody came and after all had left", "no more", f"{before} and {after}", after <= before)
    most = [max(n for t, _, n in observer.samples if a <= t <= b) for a, b in spans]
    verdict.note(f"Most descriptors open at once: {most[0]} in the second fifth, {most[1]} in the last.")
    verdict.figures.update(descriptors=[before, after], most_descriptors=most)


def judge(stage, verdict, report, troubles, rate):
    swaps = report["run"]["swaps"]["list"]
    outcomes = {o["outcome"]: o["latency_ms"]["count"] for o in report["run"]["outcomes"]}
    kinds = ", ".join(f"{t.count} {type(t).__name__.lower()}" for t in troubles)
    verdict.note(f"{report['run']['requests']['scheduled']} requests at {rate:.4g}/s ({', '.join(f'{k} {v}' for k, v in outcomes.items())}; "
                 f"p99 {report['run']['latency_ms']['p99']:.1f} ms), {len(swaps)} swaps; beside them {kinds}.")
    judge_answers(verdict, [report], stage.published)
    verdict.none("outcomes that are no 200, 429 or 504", [f"{k} x {v}" for k, v in outcomes.items() if k not in ALLOWED])
    verdict.none("swaps that failed", [f"{s['outcome']} {s.get('detail', '')}" for s in swaps if s["outcome"] != "200"])
    verdict.none("malformed requests with another answer than theirs, clients that could not connect", [w for t in troubles for w in t.wrong])
    verdict.add("of every kind there was some", ">= 5 each, 2 swaps", f"{kinds}, {len(swaps)} swaps",
                all(t.count >= 5 for t in troubles) and len(swaps) >= 2)
    late = report["run"]["requests"]["failed"] / max(1, report["run"]["requests"]["scheduled"])
    verdict.add("requests without an answer in time", "<= 1 %", f"{100 * late:.3f} %", late <= 0.01, speed=True)
    verdict.figures.update(rate_per_s=rate, outcomes=outcomes, swaps=len(swaps), latency_ms=report["run"]["latency_ms"],
                           trouble={type(t).__name__.lower(): t.count for t in troubles}, slow_clients_ended=troubles[2].ended,
                           malformed_crowded_out=troubles[0].crowded_out)


def run(stage, verdict):
    o = stage.options
    seconds = o.duration or 1800
    with stage.open_server() as server:
        rate = o.load * (o.rate or generator.find_max(stage, "poisson"))
        before = fewest_descriptors(server, seconds=3)
        stage.say(f"{rate:.4g}/s for {seconds:g} s, with all that")
        troubles = [Malformed(stage, max(1.0, MALFORMED * rate)), Vanishing(stage, VANISHING_PER_S), Dripping(stage, DRIPPING)]
        with Observer(server) as observer:
            with troubles[0], troubles[1], troubles[2]:
                asking = generator.Generator(stage, "--rate", f"{rate:.4g}", "--duration", f"{seconds:g}s", *swap_arguments(SWAP_EVERY))
                while asking.is_running():
                    stage.sleep(0.5)
                report, ended = asking.result(), observer.now()
        judge(stage, verdict, report, troubles, rate)
        judge_flat(stage, verdict, observer, (before, fewest_descriptors(server, before)), ended, stage.flat)
        verdict.none("liveness other than 200", observer.not_alive)
        verdict.add("the process that was started still serves", "yes", "yes", server.process.poll() is None)
