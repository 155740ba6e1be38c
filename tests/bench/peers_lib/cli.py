"""Command line, and the order of things: what is missing in the work directory is made, variants are begun, rounds, table."""
import argparse
import json
import os
import shutil
import signal
import sys

from . import child
from . import contenders
from . import machine
from . import session
from . import table
from . import variants
from . import work

HELP = """\
Times winnow and the engines a user would take instead (ONNX Runtime, PyTorch) on one checkpoint, alternately in one session, and prints
the table of ratios. A request is one image and --tokens text tokens, logits of the last position, batch 1.

The first time the checkpoint (random weights), the ONNX export and its quantised variants are made; they are kept in --work. winnow and
this script run here, the peers in the Python of --python, which needs torch, transformers, safetensors, onnx and onnxruntime.

examples:
  peers                                                     scale paper, with the python3 that is here
  peers --scale demo --only winnow-int8,ort-int8,ort-int8-pc --rounds 16 --json demo.json
  peers --python 'chroot /srv/chroot/sid python3' --work /srv/chroot/sid/tmp/peers --work-inside /tmp/peers
  peers --list                                              the variants

Exit codes: 0 done, 1 something failed (the others are in the table), 2 usage, 130 stopped."""
SCALES = {"paper": 5, "demo": 50, "tiny": 50}       # requests a turn: about a second
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__)))))


class UsageError(Exception):
    pass


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UsageError(message)


def count(largest):
    def parse(text):
        if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= largest:
            raise argparse.ArgumentTypeError(f"expected a whole number from 1 to {largest}, found '{text}'")
        return int(text)
    return parse


def default_executable():
    built = os.path.join(ROOT, os.environ.get("BUILD", "build"), "prune", "winnow-prune")
    return built if os.access(built, os.X_OK) else "winnow-prune"


def parser():
    p = Parser(prog="peers", description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    p.add_argument("--scale", choices=SCALES, default="paper", help="of the checkpoint: paper (0.3 B parameters), demo (9 M), tiny")
    p.add_argument("--python", default="python3", metavar="COMMAND", help="the peers' Python; default python3")
    p.add_argument("--work", default=os.path.join(ROOT, "build", "bench-peers"), metavar="DIR",
                   help="where what is made is kept; default build/bench-peers")
    p.add_argument("--work-inside", metavar="DIR", help="the same directory as the peers' Python sees it; default the same name")
    p.add_argument("--winnow-prune", metavar="FILE", default=default_executable(), dest="executable",
                   help="the program; default build/prune/winnow-prune (or $BUILD/…) if there is one, else from $PATH")
    p.add_argument("--only", action="append", metavar="NAME,...", help="variants to time (--list); default all; may be repeated")
    p.add_argument("--rounds", type=count(1000), default=8, metavar="N", help="turns of each variant; default 8")
    p.add_argument("--runs", type=count(10000), metavar="N", help="timed requests a turn; default 5 for paper, else 50")
    p.add_argument("--tokens", type=count(4096), default=64, metavar="N", help="text tokens of the request; default 64")
    p.add_argument("--threads", type=count(1024), default=2, metavar="N", help="threads of every variant; default 2")
    p.add_argument("--json", metavar="FILE", help="also write all figures there")
    p.add_argument("--list", action="store_true", help="print the variants and leave")
    return p


def check(args):
    args.runs = args.runs or SCALES[args.scale]
    args.names = set(variants.NAMES if args.only is None else ",".join(args.only).split(","))
    for name in sorted(args.names - set(variants.NAMES)):
        raise UsageError(f"--only: found '{name}', expected some of {','.join(variants.NAMES)}")
    args.program = shutil.which(args.executable)
    if not args.program:
        raise UsageError(f"--winnow-prune {args.executable}: no such program; build it: ninja -C build prune/winnow-prune")
    if args.work_inside and not os.path.isabs(args.work_inside):
        raise UsageError(f"--work-inside {args.work_inside}: expected an absolute path")
    if args.json and not os.path.isdir(os.path.dirname(os.path.abspath(args.json))):
        raise UsageError(f"--json {args.json}: its directory does not exist")


def make_contenders(args, place):
    for v in variants.VARIANTS:
        if v.name in args.names:
            yield contenders.Winnow(v, args.program, place, args.threads) if v.family == "winnow" else \
                contenders.Peer(v, place, args.threads)


def inspect(args, place):
    words = [args.program, "inspect", "--model", place.path(place.relative("model")), "--tokens", str(args.tokens), "--json"]
    return json.loads(child.run("winnow-prune inspect", words, place.log("inspect")))


def write_atomic(path, text):
    with open(path + ".writing", "w", encoding="utf-8") as f:
        f.write(text)
    os.rename(path + ".writing", path)


def compare(args):
    progress = session.Progress()
    where = machine.describe()
    warnings = machine.warnings(where)
    for line in warnings:
        progress.note(f"peers: {line}")
    place = work.Work(args)
    place.make_model_and_request(progress.note)
    model = inspect(args, place)
    all_of_them = list(make_contenders(args, place))
    at_work = session.Session(all_of_them, args.rounds, args.runs, progress)
    try:
        at_work.begin(lambda c: place.make_file(progress.note, c.variant.file))
        at_work.run()
    finally:
        at_work.end()
    report = {"scale": args.scale, "parameters": model["parameters"], "flops": model["flops"], "tokens": args.tokens,
              "threads": args.threads, "rounds": args.rounds, "requests": args.runs, "machine": where, "warnings": warnings,
              "variants": table.results(all_of_them, model["flops"])}
    print(table.markdown(report), end="", flush=True)
    if args.json:
        write_atomic(args.json, json.dumps(report, ensure_ascii=False, indent=1) + "\n")
    return 1 if any(c.failed for c in all_of_them) else 0


def on_signal(number, frame):
    raise child.Stopped


def main(argv):
    try:
        args = parser().parse_args(argv)
        if args.list:
            for v in variants.VARIANTS:
                print(f"{v.name:14s} {v.title}")
            return 0
        check(args)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, on_signal)
        return compare(args)
    except UsageError as e:
        print(f"peers: {e}", file=sys.stderr)
        return 2
    except (child.ChildError, work.WorkError, OSError) as e:
        print(f"peers: {e}", file=sys.stderr)
        return 1
    except child.Stopped:
        print("\npeers: stopped; what was made is kept", file=sys.stderr)
        return 130
