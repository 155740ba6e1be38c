#!/usr/bin/env python3
"""Model versions that come and fail while winnow-serve answers. Standard library only, over real HTTP.

  swap_e2e.py --serve PATH/winnow-serve --prune PATH/winnow-prune [--only NAME]

Three tiny models with different answers to the same ad stand for versions, so that an answer tells which of them computed it. Swaps and
bad versions by the hundred, killed publishers and memory over many swaps are tests/hold's.
"""
import os
import shutil
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import make_tiny_model  # noqa: E402
from model_versions import BAD, MODELS, SEEDS, Load, SwapServer, new_registry, prepare_models, put, wait_for  # noqa: E402
from server_process import RUN, check, log, read_file, run_failing, run_tests, same  # noqa: E402
from spoil_model import flip_a_bit  # noqa: E402


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
    with SwapServer(registry, "inference.mode=throughput", "inference.instances=2", "inference.queue_capacity=64") as server:
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
    with SwapServer(registry, "inference.threads=1" if RUN.tsan else "inference.threads=2") as server:
        put(registry, 2)
        wait_for(lambda: "model tiny version 1: freed" in server.errors(), what="version 1 is freed")
        same(server.version(), 2, "version")
        m = server.metrics()
        same([k for k in m if k.startswith("winnow_model_bytes")], ['winnow_model_bytes{name="tiny",version="2"}'], "loaded")
        same(m["winnow_models_memory_bytes"], m['winnow_model_bytes{name="tiny",version="2"}'], "memory")


# ---- versions that must not take over ----


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
    big = os.path.join(RUN.work, "big")
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
    code, text = run_failing("--registry", registry, "--set", "model.name=tiny", "--listen", "0", "--set", "inference.threads=1",
                             "--set", f"model.memory_budget={one - 1}")
    same(code, 1, text)
    check("model.memory_budget has" in text and text.count("\n") == 1, text)
    with SwapServer(registry, f"model.memory_budget={one + one // 2}", "model.poll_interval=1h") as server:
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


def test_start_serves_an_older_version_when_the_latest_is_bad():
    registry = new_registry(1)
    put(registry, 2, change=flip_a_bit)
    with SwapServer(registry) as server:
        same(server.version(), 1, "version")
        check("version 1 serves instead" in server.errors(), server.errors())
        check("model.safetensors" in server.state(2)["reason"], server.state(2))


if __name__ == "__main__":
    run_tests(globals(), prepare_models)
