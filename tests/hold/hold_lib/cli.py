"""Command line; a work directory; the scenarios in turn; table, document and exit code."""
import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile

from server_process import BUNDLED, HERE, RUN

from . import bad_models, generator, overload, soak, stage, swaps, variants, verdict

ROOT = os.path.abspath(os.path.join(HERE, "..", ".."))
SCENARIOS = {"swaps": swaps, "bad-models": bad_models, "overload": overload, "soak": soak}
HELP = """\
Does winnow-serve hold while models are swapped, bad models arrive, three times too much is asked, or everything happens at once for half an
hour? Each scenario starts a server on a registry of its own, with two models whose answers to the sample ads are known and differ, asks it with
winnow-load, holds every answer against the known one, and ends with a table: what was asked, what was measured, whether it was met.

scenarios:
  swaps        --count model swaps under constant load, in turns with as long without
  bad-models   models that must not take over, under load; and publishers that are killed, --kills times
  overload     --factor times the highest rate for --duration, then recovery
  soak         --load of the highest rate for --duration, with disconnects, slow clients, malformed requests and swaps
  all          these four

examples:
  tests/hold/hold all --json hold.json                              all of it, about 75 minutes
  tests/hold/hold swaps --count 1000 --load 0.7
  tests/hold/hold overload --factor 3 --duration 2m --rate 250      250/s is known to be the highest rate
  tests/hold/hold soak --duration 3m --rate 20 --no-speed           on a machine that is busy with something else

Rates, and latencies to a deadline, mean something on a quiet machine only. --no-speed lists such criteria without judging them.
Exit codes: 0 every criterion was met, 1 one was not, or the server failed, 2 usage, 3 a run could not be
made, 130 stopped."""


class UsageError(Exception):
    pass


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UsageError(message)


class Stopped(Exception):
    pass


def number(least, most, whole=False):
    def parse(text):
        try:
            value = (int if whole else float)(text)
        except ValueError:
            value = None
        if value is None or not least <= value <= most:
            raise argparse.ArgumentTypeError(f"expected a {'whole ' if whole else ''}number from {least:g} to {most:g}, found '{text}'")
        return value
    return parse


def seconds(text):
    for unit, factor in (("ms", 1e-3), ("s", 1), ("m", 60), ("h", 3600), ("", 1)):
        digits = text[:len(text) - len(unit)]
        if text.endswith(unit) and digits.replace(".", "", 1).isdigit() and 0 < float(digits) * factor <= 86400:
            return float(digits) * factor
    raise argparse.ArgumentTypeError(f"expected a time such as 90s or 30m, found '{text}'")


def latest_bundled():
    versions = os.path.join(BUNDLED, stage.NAME)
    return os.path.join(versions, max((v for v in os.listdir(versions) if v.isdigit()), key=int))


def parser():
    p = Parser(prog="hold", description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    p.add_argument("scenario", choices=[*SCENARIOS, "all"])
    g = p.add_argument_group("what is run")
    g.add_argument("--build", default=os.path.join(ROOT, os.environ.get("BUILD", "build")), metavar="DIR",
                   help="where the programs were built (build)")
    for name, word in (("serve", "winnow-serve"), ("prune", "winnow-prune"), ("generator", "winnow-load")):
        g.add_argument("--" + name, metavar="PATH", help=f"{word}, if not from --build")
    g.add_argument("--model", default=latest_bundled(), metavar="DIR", help="the model (the latest of registry/ad-audit)")
    g.add_argument("--other", metavar="DIR", help="a second one of the same speed (a variant of the first, for which that must be in F32)")
    g.add_argument("--ads", default=os.path.join(ROOT, "tests", "samples", "test"), metavar="DIR", help="folder of ads (tests/samples/test)")
    g.add_argument("--limit", type=number(0, 1e6, True), default=0, metavar="N", help="only the first N ads (0: all)")
    g.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the server; may be repeated")
    g = p.add_argument_group("how much")
    g.add_argument("--rate", type=number(0.1, 1e6), metavar="R", help="the highest rate, if it is known; otherwise it is looked for")
    g.add_argument("--load", type=number(0.01, 1), default=0.7, metavar="SHARE", help="of the highest rate, for all but overload (0.7)")
    g.add_argument("--duration", type=seconds, metavar="T", help="of overload (2m) and soak (30m)")
    g.add_argument("--deadline-ms", type=number(1, 60000, True), default=90, metavar="MS", help="of every request, and what goodput means (90)")
    g.add_argument("--trial", type=seconds, default=10.0, metavar="T", help="of each rate that is tried (10s)")
    g.add_argument("--count", type=number(2, 100000, True), default=1000, metavar="N", help="swaps of the scenario swaps (1000)")
    g.add_argument("--every", type=seconds, default=1.0, metavar="T", help="time between those swaps (1s)")
    g.add_argument("--without", type=seconds, default=120.0, metavar="T", help="a turn without swaps takes no longer (2m)")
    g.add_argument("--kills", type=number(0, 100000, True), default=200, metavar="N", help="publishers killed by bad-models (200)")
    g.add_argument("--factor", type=number(1, 100), default=3, metavar="F", help="of the highest rate, for overload (3)")
    g.add_argument("--seed", type=number(0, 2**31, True), default=1, metavar="N", help="of what is random (1)")
    g = p.add_argument_group("what is judged and written")
    g.add_argument("--no-speed", dest="speed", action="store_false", help="do not judge what depends on the machine's speed")
    g.add_argument("--json", metavar="FILE", help="everything as a document")
    g.add_argument("--keep", metavar="DIR", help="work in this new directory and keep it, with the server's log")
    return p


def check(o):
    programs = {"serve": ("server", "winnow-serve"), "prune": ("prune", "winnow-prune"), "generator": ("load", "winnow-load")}
    for option, place in programs.items():
        path = getattr(o, option) or os.path.join(o.build, *place)
        if not os.access(path, os.X_OK):
            raise UsageError(f"{path}: no such program; build it (ninja -C build), or name it with --{option}")
        setattr(o, option, os.path.abspath(path))
    for option, file in (("model", "winnow.json"), ("other", "winnow.json"), ("ads", "metadata.jsonl")):
        path = getattr(o, option)
        if path and not os.path.isfile(os.path.join(path, file)):
            raise UsageError(f"--{option} {path}: found no {file} in it")
    if o.json and not os.path.isdir(os.path.dirname(os.path.abspath(o.json))):
        raise UsageError(f"--json {o.json}: its directory does not exist")
    if o.keep and os.path.exists(o.keep):
        raise UsageError(f"--keep {o.keep}: exists already")


def run_scenario(o, name, work):
    """One scenario in a directory of its own: its verdict."""
    RUN.work = work
    at_work = stage.Stage(o, work)
    found = verdict.Verdict(name, o.speed)
    try:
        at_work.prepare()
        SCENARIOS[name].run(at_work, found)
    finally:
        at_work.end_children()
    return found


def hold(o):
    RUN.take_server(o.serve)
    RUN.prune = o.prune
    top = o.keep or tempfile.mkdtemp(prefix="winnow-hold-")
    os.makedirs(top, exist_ok=True)
    names = list(SCENARIOS) if o.scenario == "all" else [o.scenario]
    documents, met = [], True
    try:
        for name in names:
            work = os.path.join(top, name)
            os.mkdir(work)
            found = run_scenario(o, name, work)
            print(found.markdown(), flush=True)
            documents.append(found.document())
            met = met and found.met()
            if o.json:  # after each: a later scenario may not come to its end
                settings = {k: v for k, v in vars(o).items() if k != "scenario"}
                verdict.write_json(o.json, {"settings": settings, "met": met, "scenarios": documents})
    finally:
        if not o.keep:
            shutil.rmtree(top, ignore_errors=True)
    print("every criterion was met" if met else "NOT every criterion was met", flush=True)
    return 0 if met else 1


def on_signal(number, frame):
    raise Stopped


def main(argv):
    try:
        o = parser().parse_args(argv)
        check(o)
        for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(s, on_signal)
        return hold(o)
    except UsageError as e:
        print(f"hold: {e}", file=sys.stderr)
        return 2
    except AssertionError as e:
        print(f"hold: {e}", file=sys.stderr)
        return 1
    except (generator.GeneratorError, variants.VariantError, OSError, json.JSONDecodeError, subprocess.SubprocessError) as e:
        print(f"hold: {e}", file=sys.stderr)
        return 3
    except Stopped:
        print("hold: stopped", file=sys.stderr)
        return 130
