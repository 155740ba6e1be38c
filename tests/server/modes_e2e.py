#!/usr/bin/env python3
"""winnow-serve's two modes: latency and throughput, their threads and processors. Standard library only, over real HTTP.

  modes_e2e.py --serve PATH/winnow-serve --prune PATH/winnow-prune [--only NAME]

Under the thread sanitizer every instance has one thread: it does not know OpenMP's barriers.
"""
import concurrent.futures
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from model_versions import Load, SwapServer, new_registry, prepare_models, put, wait_for  # noqa: E402
from server_process import BUNDLED, GENEROUS, RUN, SAMPLES, Server, check, log, read_file, run_failing, run_tests, same  # noqa: E402

PROCESSORS = sorted(os.sched_getaffinity(0))
THROUGHPUT = "inference.mode=throughput"


# ---- what a server says and does ----

def threads_of(server, name):
    """{thread id: processors it may run on} of the threads with this name; OpenMP's have their starter's."""
    found = {}
    for tid in os.listdir(f"/proc/{server.pid}/task"):
        if read_file("/proc", str(server.pid), "task", tid, "comm").decode().strip() == name:
            found[tid] = os.sched_getaffinity(int(tid))
    return found


def other_threads(server):
    names = {read_file("/proc", str(server.pid), "task", t, "comm").decode().strip() for t in os.listdir(f"/proc/{server.pid}/task")}
    return sorted(n for n in names if not n.startswith("inference-"))


def gauge(server, name):
    return int(server.metrics()["winnow_" + name])


def runs(server):
    """(instances, threads of each, pinned) as the metrics have them."""
    m = server.metrics()
    pinned = [k for k in m if k.startswith("winnow_inference_info")]
    same(len(pinned), 1, "info")
    return gauge(server, "inference_instances"), gauge(server, "inference_threads"), 'pinned="true"' in pinned[0]


def may_use_all(server):
    """False under a cgroup quota below the mask."""
    return gauge(server, "processors_usable") == len(PROCESSORS)


class Confined:
    """What is started inside may run on one processor."""

    def __enter__(self):
        os.sched_setaffinity(0, {PROCESSORS[-1]})

    def __exit__(self, *rest):
        os.sched_setaffinity(0, PROCESSORS)


# ---- answers ----

def sample_ads():
    with open(os.path.join(SAMPLES, "metadata.jsonl"), encoding="utf-8") as f:
        return [json.loads(line) for line in f][::2]


def audit_samples(*settings):
    """What is said of every sample, several of them asked at the same time."""
    def ask(ad):
        fields = {"assist": ad["assist"]} if ad.get("assist") else {}
        status, _, body = server.audit(read_file(SAMPLES, ad["file_name"]), ad["text"], **fields)
        same(status, 200, body)
        answer = json.loads(body)
        return {k: answer[k] for k in ("label", "suggestion", "score", "labels", "model")}
    one = ["inference.threads=1"] if RUN.tsan else []
    with Server(*GENEROUS, *settings, *one, "inference.queue_capacity=64", registry=BUNDLED, name="ad-audit") as server:
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            return runs(server), list(pool.map(ask, sample_ads()))


def differs(a, b):
    """Whether two answers are not the same: how rows are shared out among threads may show in a score's last digits."""
    scores = {x["name"]: x["score"] for x in b["labels"]}
    return ((a["label"], a["suggestion"], a["model"]) != (b["label"], b["suggestion"], b["model"]) or
            any(abs(scores[x["name"]] - x["score"]) > 1e-5 for x in a["labels"]))


def test_both_modes_give_the_same_answers():
    _, expected = audit_samples()
    check(len(expected) > 20)
    for settings in ([THROUGHPUT], [THROUGHPUT, "inference.instances=3", "inference.max_batch=4"]):
        how, found = audit_samples(*settings)
        wrong = [(a, b) for a, b in zip(expected, found) if differs(a, b)]
        check(not wrong, f"{settings}: {len(wrong)} of {len(expected)} differ: {wrong[:1]}")
        log(f"     {len(found)} answers of {how[0]} instance(s) of {how[1]} thread(s)")


# ---- swapping ----

def test_swaps_under_load_with_an_instance_a_processor():
    registry = new_registry(1)
    with SwapServer(registry, THROUGHPUT, "inference.instances=3", "inference.decode_threads=2", "inference.max_batch=2",
                    "inference.queue_capacity=64") as server:
        same(runs(server)[:2], (3, 1), "instances and threads")
        with Load(server, 6) as load:
            wait_for(lambda: len(load.answers) > 10, what="answers")
            put(registry, 2)
            wait_for(lambda: server.version() == 2, what="version 2 takes over")
            for i in range(4):
                server.load(1 + i % 2)
                same(server.version(), 1 + i % 2, "right after the load")
            server.load(1, percent=50)
            wait_for(lambda: server.metrics()['winnow_canary_requests{name="tiny",version="1",result="selected"}'] > 5, what="a trial")
            server.load(1)
            same(server.version(), 1, "promoted")
        same(load.versions(), {1, 2}, "versions that answered")
        m = server.settled_metrics()
        same(m['winnow_model_swaps_total{name="tiny",result="failed"}'], 0, "failed swaps")
        wait_for(lambda: server.errors().count("freed") >= 6, what="every version that was replaced is freed")
        log(f"     {len(load.answers)} answers")


def processor_time(server, instance):
    """Nanoseconds that the instance's thread has run."""
    (tid,) = threads_of(server, f"inference-{instance}")
    return int(read_file("/proc", str(server.pid), "task", tid, "schedstat").split()[0])


def test_every_instance_is_warmed_up():
    registry = new_registry(1, 2)
    with SwapServer(registry, THROUGHPUT, "inference.instances=3", "model.version=1") as server:
        before = [processor_time(server, i) for i in range(3)]
        server.load(2)
        took = [processor_time(server, i) - b for i, b in enumerate(before)]
        # Without a request: the new version's first runs, on each of them. One that was left out only woke up.
        check(min(took) > max(took) / 10 > 0, took)


def test_memory_is_that_of_all_instances():
    def model_bytes(instances):
        with SwapServer(registry, THROUGHPUT, f"inference.instances={instances}") as server:
            return int(server.metrics()['winnow_model_bytes{name="tiny",version="1"}'])
    registry = new_registry(1)
    one, two, three = (model_bytes(n) for n in (1, 2, 3))
    check(two > one, (one, two))
    same(three - two, two - one, "a session more")
    code, text = run_failing("--registry", registry, "--set", "model.name=tiny", "--listen", "0", "--set", THROUGHPUT, "--set",
                             "inference.instances=3", "--set", "inference.threads=1", "--set", f"model.memory_budget={three - 1}")
    same(code, 1, text)
    check("model.memory_budget has" in text, text)


def test_stopping_under_load_loses_no_answer():
    registry = new_registry(1)
    for _ in range(6):
        stop_under_load(registry)


def stop_under_load(registry):
    with SwapServer(registry, THROUGHPUT, "inference.instances=2", "inference.queue_capacity=64") as server:
        load = Load(server, 4)
        for t in load.threads:
            t.start()
        wait_for(lambda: len(load.answers) > 10, what="answers")
        server.stop()
        for t in load.threads:
            t.join()
        # What the server says it answered is what its clients got. Else they only found the connection closed, before an answer.
        refused = [json.loads(f)["reason"] for f in load.failed if isinstance(f, bytes)]
        same(set(refused) - {"draining"}, set(), "refusals")
        lines = [x for x in server.access_log() if x["path"] == "/v1/audit"]
        same([x for x in lines if x["status"] not in (200, 503) or not x["bytes_out"]], [], "requests that were taken and not answered")
        same([x["status"] for x in lines].count(200), len(load.answers), "answers")
        same([x["status"] for x in lines].count(503), len(refused), "refusals that arrived")


# ---- threads and processors ----

def test_throughput_is_an_instance_a_processor_each_in_its_place():
    with SwapServer(new_registry(1), THROUGHPUT) as server:
        usable = gauge(server, "processors_usable")
        same(runs(server)[:2], (usable, 1), "instances and threads")
        places = [threads_of(server, f"inference-{i}") for i in range(usable)]
        same([len(p) for p in places], [1] * usable, "threads of each")
        if may_use_all(server):
            same([list(p.values()) for p in places], [[{c}] for c in PROCESSORS], "places")
        for name in other_threads(server):
            same(list(threads_of(server, name).values()), [set(PROCESSORS)] * len(threads_of(server, name)), name)
        status, _, text = server.request("GET", "/v2/models/tiny")
        same(json.loads(text)["parameters"]["inference"], {"mode": "throughput", "instances": usable, "threads": 1,
                                                           "pinned": may_use_all(server), "oversubscribed": False}, "metadata")


def test_latency_is_one_instance_with_every_processor():
    if RUN.tsan:
        return
    with Server(*GENEROUS, registry=new_registry(1)) as server:
        usable = gauge(server, "processors_usable")
        same(runs(server)[:2], (1, usable), "instances and threads")
        team = threads_of(server, "inference-0")
        same(len(team), usable, "threads that run the model")
        if may_use_all(server):
            same(sorted(map(sorted, team.values())), [[c] for c in PROCESSORS], "places")
        check("WARNING" not in server.errors(), server.errors())


def test_nothing_is_pinned_that_should_not_be():
    with SwapServer(new_registry(1), THROUGHPUT, "inference.affinity=none") as server:
        same(runs(server)[2], False, "pinned")
        same(list(threads_of(server, "inference-0").values()), [set(PROCESSORS)], "places")
    if len(PROCESSORS) > 1 and not RUN.tsan:
        with Server(*GENEROUS, "inference.threads=1", registry=new_registry(1)) as server:
            same(list(threads_of(server, "inference-0").values()), [set(PROCESSORS)], "places of a part of them")


def test_a_server_confined_to_one_processor_uses_one_thread():
    registry = new_registry(1)
    for settings in ([], [THROUGHPUT]):
        with Confined():
            server = Server(*GENEROUS, *settings, registry=registry)
        with server:
            same(runs(server)[:2], (1, 1), "instances and threads")
            same(list(threads_of(server, "inference-0").values()), [{PROCESSORS[-1]}], "threads")
            if len(PROCESSORS) > 1:
                check("processors: affinity mask" in server.errors(), server.errors())


def test_more_threads_than_processors_are_warned_of():
    with SwapServer(new_registry(1), THROUGHPUT, f"inference.instances={len(PROCESSORS) + 1}") as server:
        lines = [line for line in server.errors().splitlines() if " WARNING " in line]
        same(len(lines), 1, lines)
        check(f"{len(PROCESSORS) + 1} instance(s) of 1 thread(s) are more than this process may use" in lines[0], lines)
        same(gauge(server, "oversubscribed"), 1, "oversubscribed")
        server.answer()
    with SwapServer(new_registry(1), env={"OMP_NUM_THREADS": "7"}) as server:
        check("OMP_NUM_THREADS is 7 and not followed: inference.threads decides, 1" in server.errors(), server.errors())
        same(gauge(server, "oversubscribed"), 0, "oversubscribed")


def test_instances_that_contradict_the_mode_are_refused():
    code, text = run_failing("--check-config", "--set", "inference.instances=2")
    same((code, text), (2, "winnow-serve: inference.instances: found 2, inference.mode latency has one; expected mode throughput\n"),
         "refusal")
    code, text = run_failing("--check-config", "--set", "inference.mode=fast")
    same(code, 2, text)
    check("inference.mode" in text and "latency, throughput" in text and text.count("\n") == 1, text)


if __name__ == "__main__":
    run_tests(globals(), prepare_models)
