"""Command line, and the order of things: the plan once, then every row with every seed, the table after each.

Seeds go round before rows do not: after the first round every row has a figure, later ones make them surer."""
import argparse
import fcntl
import os
import re
import shutil
import signal
import sys
import time

from . import plan
from . import rows
from . import runs
from . import table
from .progress import Progress, duration

HELP = """\
Makes the ablation table of a compression: the same student, at equal shape and equal steps of distillation, made without one
part of the method after the other. Writes RUN/ablation.json (for winnow-prune report) and RUN/ablation.md, after every run.

examples:
  ablation --config configs/compress-small.yaml --run runs/ablation            the whole table, three seeds
  ablation --config configs/compress-small.yaml --run runs/ablation            again: continues where it was stopped or killed
  ablation --config configs/compress-small.yaml --run runs/a --rows one-shot,random --seeds 2
  ablation --config configs/compress-small.yaml --run runs/a --row "hot" loss.temperature=4 --set data.dir=/data/ads
  ablation --list                                                              the built-in rows

Exit codes: 0 done, 1 a run failed (the others are in the table), 2 usage, 130 stopped; the same command continues."""
MAX_SEEDS = 100


class UsageError(Exception):
    pass


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UsageError(message)


def count(text):
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MAX_SEEDS:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to {MAX_SEEDS}, found '{text}'")
    return int(text)


def assignment(text):
    if not re.match(r"[^=\s]+=", text):
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, found '{text}'")
    return text


def default_executable():
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
    built = os.path.join(root, os.environ.get("BUILD", "build"), "prune", "winnow-prune")
    return built if os.access(built, os.X_OK) else "winnow-prune"


def parser():
    p = Parser(prog="ablation", description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    p.add_argument("--config", metavar="FILE", help="base configuration of winnow-prune compress")
    p.add_argument("--run", metavar="DIR", help="where runs and table go; an earlier table of the same configuration is continued")
    p.add_argument("--seeds", type=count, default=3, metavar="N", help="runs a row, with seeds 1 to N; default 3")
    p.add_argument("--rows", metavar="NAME,...", help="built-in rows to make (--list); default all; full is always made")
    p.add_argument("--row", nargs="+", action="append", default=[], metavar=("NAME", "KEY=VALUE"),
                   help="a row of your own: overrides of the configuration; may be repeated")
    p.add_argument("--set", type=assignment, action="append", default=[], metavar="KEY=VALUE", dest="sets",
                   help="override one key of the base configuration, in all rows; may be repeated")
    p.add_argument("--jobs", type=count, default=len(os.sched_getaffinity(0)), metavar="N",
                   help="runs at a time, which share the processors; default one a processor: small models train faster that way")
    p.add_argument("--cache", metavar="DIR", help="decoded images and teacher outputs, shared by all runs; default RUN/cache")
    p.add_argument("--winnow-prune", metavar="FILE", default=default_executable(), dest="executable",
                   help="the program; default build/prune/winnow-prune (or $BUILD/…) if there is one, else from $PATH")
    p.add_argument("--list", action="store_true", help="print the built-in rows and leave")
    return p


def own_rows(words):
    made = []
    for name, *sets in words:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name) or name in rows.NAMES or name in {r.name for r in made}:
            raise UsageError(f"--row {name}: expected a new name of letters, digits, '.', '_' and '-'")
        if not sets:
            raise UsageError(f"--row {name}: expected KEY=VALUE behind the name")
        for word in sets:
            try:
                assignment(word)
            except argparse.ArgumentTypeError as e:
                raise UsageError(f"--row {name}: {e}") from None
        made.append(rows.Row(name, name, sets))
    return made


def check(args):
    if not args.config or not args.run:
        raise UsageError(f"--{'run' if args.config else 'config'} is missing (try --help)")
    if not os.path.isfile(args.config):
        raise UsageError(f"--config {args.config}: no such file")
    if not shutil.which(args.executable):
        raise UsageError(f"--winnow-prune {args.executable}: no such program; build it: ninja -C build prune/winnow-prune")
    args.names = set(rows.NAMES if args.rows is None else args.rows.split(",")) | {"full"}
    for name in sorted(args.names - set(rows.NAMES)):
        raise UsageError(f"--rows: found '{name}', expected some of {','.join(rows.NAMES)}")
    args.own = own_rows(args.row)


def lock(directory):
    """Held until the process ends."""
    os.makedirs(directory, exist_ok=True)
    f = open(os.path.join(directory, "lock"), "a+b")
    try:
        fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise runs.RunError(f"another ablation works in {directory}") from None
    return f


def make_plan(program, directory):
    """One step of the base configuration: its plan, and the caches of its seed."""
    run = runs.Run(program, os.path.join(directory, "plan"), [], ["--max-steps", "1"])
    run.check_settings()
    if not os.path.exists(run.path("plan.json")):
        print("planning the shape that all rows end at", file=sys.stderr, flush=True)
        run.wait_for_others(lambda line: print(line, file=sys.stderr, flush=True))
        run.execute()
    return run.plan()


class Cell:
    """A row with a seed."""

    def __init__(self, program, directory, row, seed, shape):
        self.row, self.seed, self.label = row, seed, f"{row.name} seed {seed}"
        self.run = runs.Run(program, os.path.join(directory, "rows", row.name, f"seed-{seed}"), [*shape, *row.sets, f"seed={seed}"])
        self.result = self.error = self.running = None
        self.first = 0

    def read(self, common):
        """Takes the result of a finished run; False when there is none."""
        final = self.run.final()
        if not final:
            return False
        self.refuse_unlike(common)
        if final["parameters"] != common.parameters:
            raise runs.RunError(f"it has {final['parameters']:.0f} parameters, the plan {common.parameters:.0f}")
        if not final.get("eval"):
            raise runs.RunError("its final event has no evaluation: data.test and data.validation are both empty")
        self.result = final
        return True

    def refuse_unlike(self, common):
        why = self.run.plan().unlike(common)
        if why:
            raise runs.RunError(why)

    def begin(self, common, note):
        """True when it runs from now on, False when a run was finished meanwhile."""
        self.first, self.planned, self.began = self.run.steps_done(), False, time.monotonic()
        self.run.check_settings()
        self.run.wait_for_others(note)
        if self.read(common):
            return False
        self.running = self.run.start()
        return True

    def go_on(self, common):
        """Now and then while it runs; whether it goes on running."""
        if not self.planned and os.path.exists(self.run.path("plan.json")):
            self.refuse_unlike(common)
            self.planned = True
        if not self.running.poll():
            return True
        if not self.read(common):
            raise runs.RunError("it ended without a final event in log.jsonl")
        return False

    def steps(self):
        """Made since it began."""
        return self.run.steps_done() - self.first


def run_row(cells):
    keys = ("accuracy", "macro_f1", "ece", "nll")
    return {"name": cells[0].row.title, "set": cells[0].row.sets,
            "runs": [{"seed": c.seed, **{k: c.result["eval"].get(k) for k in keys}} for c in cells if c.result]}


def describe(common, cells):
    data = common.identity["data"]["train"]
    words = f"Every student: {common.parameters / 1e6:.3f} M parameters, {common.steps} steps of {common.identity['batch_size']} " \
            f"from {data['samples']} labelled ads"
    final = next((c.result for c in cells if c.result), None)
    if not final:
        return words + "."
    measured, teacher = final["eval"], final["teacher_eval"]
    return f"{words}; measured on {measured['split']} ({measured['samples']} ads), where the teacher has accuracy " \
           f"{100 * teacher['accuracy']:.2f} %, macro-F1 {100 * teacher['macro_f1']:.2f} %."


def write_table(directory, common, cells):
    by_row = {}
    for cell in cells:
        by_row.setdefault(cell.row.name, []).append(cell)
    made = [run_row(group) for group in by_row.values()]
    made = made[:1] + [row for row in made[1:] if row["runs"]]      # the first is what the others are compared with
    return table.write(directory, made, describe(common, cells), [(c.label, c.error) for c in cells if c.error])


def attempt(cell, what, *args):
    """What it says; False when it failed: the cell keeps the reason, and the others go on."""
    try:
        return what(*args)
    except (runs.RunError, plan.PlanError, OSError) as e:
        cell.error = str(e)
        if cell.running and cell.running.child.poll() is None:
            cell.running.end()
        return False


class Table:
    """All cells, `jobs` of them at work at a time."""

    def __init__(self, cells, common, directory, jobs):
        self.cells, self.common, self.directory, self.jobs = cells, common, directory, jobs
        for cell in cells:
            if cell.run.final():
                attempt(cell, lambda c=cell: (c.run.check_settings(), c.read(common)))
        self.todo = [c for c in cells if not c.result and not c.error]
        self.at_work = []
        self.progress = Progress(sum(common.steps - c.run.steps_done() for c in self.todo))

    def name(self, cell):
        return f"{self.todo.index(cell) + 1}/{len(self.todo)} {cell.label}"

    def make(self):
        finished = sum(1 for c in self.cells if c.result)
        self.progress.note(f"{len(self.cells)} runs of {self.common.steps} steps: {finished} finished, {len(self.todo)} to do")
        waiting = list(self.todo)
        try:
            while waiting or self.at_work:
                while waiting and len(self.at_work) < self.jobs:
                    self.begin(waiting.pop(0))
                time.sleep(runs.POLL)
                self.look()
        except BaseException:
            for cell in self.at_work:
                cell.running.end()
            raise

    def begin(self, cell):
        if attempt(cell, cell.begin, self.common, self.progress.note):
            self.at_work.append(cell)
        else:
            self.note_end(cell)

    def look(self):
        for cell in list(self.at_work):
            if not attempt(cell, cell.go_on, self.common):
                self.at_work.remove(cell)
                self.note_end(cell)
        if self.at_work:
            words = ", ".join(f"{self.name(c)}  step {c.run.steps_done()}/{self.common.steps}" for c in self.at_work)
            self.progress.update(words, sum(c.steps() for c in self.at_work))

    def note_end(self, cell):
        self.progress.done += self.common.steps - cell.first
        if cell.result:
            measured = cell.result["eval"]
            self.progress.note(f"{self.name(cell)}: accuracy {100 * measured['accuracy']:.2f} %, "
                               f"macro-F1 {100 * measured['macro_f1']:.2f} %, {duration(time.monotonic() - cell.began)}")
        else:
            self.progress.note(f"{self.name(cell)}: FAILED: {cell.error}")
        write_table(self.directory, self.common, self.cells)


def on_signal(number, frame):
    raise runs.Stopped


def work(args):
    held = lock(args.run)
    threads = max(1, len(os.sched_getaffinity(0)) // args.jobs)
    program = runs.Program(args.executable, args.config, args.sets, args.cache or os.path.join(args.run, "cache"), threads)
    common = make_plan(program, args.run)
    base = common.base()
    wanted, left_out = rows.make(base, args.names)
    if left_out and args.rows:
        raise UsageError(f"--rows: {left_out[0]}")
    for reason in left_out:
        print(f"leaving out row {reason}", file=sys.stderr)
    wanted += args.own
    cells = [Cell(program, args.run, row, seed, base.shape) for seed in range(1, args.seeds + 1) for row in wanted]
    Table(cells, common, args.run, args.jobs).make()
    print(write_table(args.run, common, cells), end="")
    held.close()
    return 1 if any(c.error for c in cells) else 0


def main(argv):
    try:
        args = parser().parse_args(argv)
        if args.list:
            for name, title, _ in rows.ROWS:
                print(f"{name:16s} {title}")
            return 0
        check(args)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, on_signal)
        return work(args)
    except UsageError as e:
        print(f"ablation: {e}", file=sys.stderr)
        return 2
    except (runs.RunError, plan.PlanError, OSError) as e:
        print(f"ablation: {e}", file=sys.stderr)
        return 1
    except runs.Stopped:
        print("\nablation: stopped; the same command continues", file=sys.stderr)
        return 130
