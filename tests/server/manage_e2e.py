#!/usr/bin/env python3
"""The repository's commands, several models side by side, canary and shadow trials. Standard library only, over real HTTP.

  manage_e2e.py --serve PATH/winnow-serve --prune PATH/winnow-prune [--promtool PATH] [--only NAME]
"""
import json
import os
import shutil
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from model_versions import DECISIONS, MODELS, SEEDS, TEXT, Load, SwapServer, new_registry, prepare_models, put, wait_for  # noqa: E402
from server_process import GENEROUS, Server, check, check_promtool, good_image, run_tests, same  # noqa: E402
from spoil_model import flip_a_bit  # noqa: E402


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
        held = "the model is held at version 1 by command: a load without a version gives it back to its policy"
        same({server.state(v)["reason"] for v in (2, 3)}, {held}, "reasons")
        same(server.metrics().get('winnow_model_held{name="tiny",version="1"}'), 1, "gauge")
        same(server.load(), {"name": "tiny", "version": "3", "state": "READY"}, "back to the policy")
        same(server.version(), 3, "latest again")
        check(not [k for k in server.metrics() if k.startswith("winnow_model_held{")], "nothing is held")
        for text in ("INFO model tiny: held at version 1 by command", "INFO model tiny: given back to its policy"):
            same(server.errors().count(text), 1, text)
        loads = [(x.get("model"), x.get("version")) for x in server.access_log() if x["path"].endswith("/load")]
        same(loads, [("tiny", "1"), ("tiny", None)], "access log")
        # A version whose directory is gone still serves, and can be held.
        shutil.rmtree(os.path.join(registry, "tiny", "3"))
        wait_for(lambda: "removed" in server.state(3)["reason"], what="the removal is noticed")
        same((server.version(), server.state(3)["state"]), (3, "READY"), "removed")
        server.load(3)
        server.load(2)
        wait_for(lambda: set(server.index()) == {1, 2}, what="the index without 3, when its last request has let go of it")
        server.load(3, expected=404)
        same(server.version(), 2, "version")


def is_held(server, version):
    return [k for k in server.metrics() if k.startswith("winnow_model_held{")] == [f'winnow_model_held{{name="tiny",version="{version}"}}']


def test_the_policy_takes_the_best_that_can_be_loaded():
    registry = new_registry(1, 2)
    with SwapServer(registry) as server:
        server.load(2)
        put(registry, 5, seed=SEEDS[3])
        put(registry, 6, change=flip_a_bit, seed=SEEDS[3])
        answer = server.load()
        same((server.version(), answer["version"]), (5, "5"), "what answers")
        same(answer["warning"], server.state(6)["reason"], "the better one")
        check("model.safetensors" in answer["warning"] and registry not in answer["warning"], answer)
        check("; version 5 is tried next" in server.errors() and "version 2 stays" not in server.errors(), server.errors())
        # Held where it would be anyway: the hold goes, and that is said.
        server.load(5)
        check(is_held(server, 5))
        check("model.safetensors" in server.load()["warning"])
        check(not is_held(server, 5))
        # Nothing to give back and nothing loaded: nothing has changed.
        check("model.safetensors" in server.load(expected=409)["error"])
        same(server.version(), 5, "version")
        check("; version 5 stays" in server.errors(), server.errors())


def test_what_cannot_be_loaded_changes_nothing():
    registry = new_registry(1, 2)
    with SwapServer(registry, "model.version=2") as server:
        server.load(1)
        same(server.state(2)["state"], "READY", "what the policy lists stays loaded")
        server.unload(2)
        same(server.state(2)["reason"], "unloaded by command", "reason")
        flip_a_bit(os.path.join(registry, "tiny", "2"))
        for _ in range(2):
            server.load(expected=409)
            same((server.version(), is_held(server, 1)), (1, True), "as it was")
        flip_a_bit(os.path.join(registry, "tiny", "2"))  # again: whole
        same(server.load(), {"name": "tiny", "version": "2", "state": "READY"}, "the policy again")
        same(server.state(2)["reason"], "", "what is loaded was not unloaded")
    with SwapServer(registry, "canary.automatic=off") as server:
        server.load(1, percent=50)
        put(registry, 7, change=flip_a_bit, seed=SEEDS[3])
        wait_for(lambda: "held at version 2 by a trial" in server.state(7)["reason"], what="7 is seen")
        server.load(7, expected=409)
        server.load(7, percent=10, expected=409)
        check("on trial" in server.state(1)["reason"], server.state(1))
        same({server.version() for _ in range(10)}, {1, 2}, "half")
        same(server.metrics()['winnow_canary_percent{name="tiny",version="1",mode="canary"}'], 50, "share")
        # What can be loaded ends it.
        put(registry, 8, seed=SEEDS[3])
        wait_for(lambda: server.state(8)["state"] != "absent", what="8 is seen")
        same(server.load(8)["version"], "8", "answers")
        same(ended(server, "taken_back"), 1, "the trial")
        wait_for(lambda: "model tiny version 1: freed" in server.errors(), what="the candidate is freed")
        server.load(1, percent=100)
        server.load(2, percent=100)
        same((ended(server, "taken_back"), server.state(1)["state"]), (2, "UNAVAILABLE"), "another trial")
        check("another trial" in server.state(1)["reason"], server.state(1))
        server.unload()
        server.load(1)
        same([server.state(v)["reason"] for v in (1, 8)],
             ["", "the model is held at version 1 by command: a load without a version gives it back to its policy"], "reasons")


def test_the_policy_ends_a_trial_as_it_decides():
    registry = new_registry(1, 2, 3)
    with SwapServer(registry, "canary.automatic=off") as server:
        server.load(2)
        server.load(3, percent=50)
        same(server.load(), {"name": "tiny", "version": "3", "state": "READY"}, "the latest")
        same((ended(server, "promoted"), ended(server, "taken_back")), (1, 0), "the trial")
        server.load(2, percent=50)
        same(server.load(), {"name": "tiny", "version": "3", "state": "READY"}, "the latest")
        same((ended(server, "promoted"), ended(server, "taken_back")), (1, 1), "the trial")
        same({server.version() for _ in range(4)}, {3}, "versions")


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
    with Server(*GENEROUS, model_dir=MODELS[SEEDS[1]]) as server:
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
        check_promtool(server.request("GET", "/metrics")[2])
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
        check("model tiny version 2: on trial beside version 1, shadow of 100 percent" in server.errors(), "the start tells")
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


if __name__ == "__main__":
    run_tests(globals(), prepare_models)
