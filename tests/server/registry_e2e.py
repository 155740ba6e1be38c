#!/usr/bin/env python3
"""What lies in the registry, and what the server tells of it: in the index, in the log and in metrics. Standard library only, over
real HTTP.

  registry_e2e.py --serve PATH/winnow-serve --prune PATH/winnow-prune [--only NAME]
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from model_versions import SEEDS, SwapServer, new_registry, prepare_models, put, wait_for  # noqa: E402
from server_process import check, run_tests, same  # noqa: E402
from spoil_model import edit_manifest  # noqa: E402


def one_verbalizer_begins_another(directory):
    """The message quotes 60 bytes of each, which end inside a character."""
    def edit(manifest):
        manifest["labels"][0]["verbalizer"] = "a" + "违" * 30
        manifest["labels"][1]["verbalizer"] = "a" + "违" * 31
    edit_manifest(directory, edit)


def test_reasons_are_utf8_wherever_a_message_was_cut():
    registry = new_registry(1)
    put(registry, 2, change=one_verbalizer_begins_another)
    with SwapServer(registry) as server:
        same(sorted(server.index()), [1, 2], "versions in the index")
        check("违" * 19 + "?" in server.state(2)["reason"], server.state(2))


def test_a_full_registry_is_told_before_anything_is_read():
    registry = new_registry(1)
    for v in range(2, 10):
        put(registry, v, seed=SEEDS[1])
    with SwapServer(registry, "model.version=1,2,3,4,5,6,7,8") as server:
        same(server.load(9, expected=409)["error"], "at most 16 models with 8 versions each can be loaded", "message")
        same((server.failures("room"), server.failures("changed")), (1, 0), "counted")
        same(server.version(), 8, "version")
        check("ERROR model tiny version 9: room: " in server.errors(), server.errors())


def test_what_the_configuration_lists_and_is_not_there_is_told():
    registry = new_registry(1, 2)
    put(registry, 1, name="other")
    with SwapServer(registry, "model.version=2,99", 'model.others=["other=1,98"]') as server:
        absent = {"state": "UNAVAILABLE", "reason": "wanted by the version policy, and not in the registry"}
        same(server.state(99), {"name": "tiny", "version": "99", **absent}, "99")
        same(server.state(98, name="other"), {"name": "other", "version": "98", **absent}, "98")
        same((server.version(), server.version(model="other")), (2, 1), "the others are served")
        put(registry, 99, seed=SEEDS[3])
        wait_for(lambda: server.version() == 99, what="99 comes")
        for told in ("model tiny version 99", "model other version 98"):
            same(server.errors().count(f"ERROR {told}: the configuration wants it, and it is not in the registry"), 1, told)


def test_a_symbolic_link_is_told_of():
    registry = new_registry(1)
    os.symlink("1", os.path.join(registry, "tiny", "2"))
    with SwapServer(registry) as server:
        same(server.state(2), {"name": "tiny", "version": "2", "state": "UNAVAILABLE",
                               "reason": "tiny/2: found a symbolic link, expected a directory"}, "index")
        same(server.version(), 1, "version")
        check("symbolic link" in server.load(2, expected=409)["error"])
        os.remove(os.path.join(registry, "tiny", "2"))
        put(registry, 2)
        wait_for(lambda: server.version() == 2, what="a real one takes over")


def test_a_registry_that_went_is_told_of():
    registry = new_registry(1, 2)
    with SwapServer(registry, "model.poll_interval=100ms") as server:
        same(server.metrics()["winnow_registry_readable"], 1, "gauge")
        os.rename(registry, registry + ".away")
        gone = "cannot open the model registry: No such file or directory"
        wait_for(lambda: server.state(2)["reason"] == gone + "; what is loaded stays", what="the index tells")
        same((server.state(2)["state"], server.state(1)["reason"]), ("READY", gone), "index")
        same(server.metrics()["winnow_registry_readable"], 0, "gauge")
        same(server.load(9, expected=404)["error"], 'model "tiny" has no version 9 in the registry; ' + gone, "a version")
        same(server.load(name="new", expected=404)["error"], 'model "new" is not in the registry; ' + gone, "a model")
        same(server.load(1, expected=409)["error"], gone, "a known version")
        same(server.version(), 2, "version")
        os.rename(registry + ".away", registry)
        wait_for(lambda: server.state(2)["reason"] == "", what="it is back")
        same(server.metrics()["winnow_registry_readable"], 1, "gauge")
        same((server.errors().count("ERROR " + registry + ": cannot open"), server.errors().count("can be looked at again")), (1, 1), "log")


def test_what_did_not_fit_is_tried_again():
    registry = new_registry(1)
    put(registry, 1, name="other")
    with SwapServer(registry, "model.others=[other]") as server:
        one = int(server.metrics()['winnow_model_bytes{name="tiny",version="1"}'])
    with SwapServer(registry, "model.others=[other]", "model.poll_interval=100ms", f"model.memory_budget={2 * one + one // 2}") as server:
        put(registry, 2)
        wait_for(lambda: server.failures("budget") >= 2, what="a second try")
        same(server.state(2)["state"], "UNAVAILABLE", "no room")
        check("; version 1 stays; tried again in 0.1 s" in server.errors() and "tried again in 0.2 s" in server.errors(), server.errors())
        server.unload(name="other")
        wait_for(lambda: server.version() == 2, what="there is room now")
        same(server.state(2)["reason"], "", "reason")


if __name__ == "__main__":
    run_tests(globals(), prepare_models)
