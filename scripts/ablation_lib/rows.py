"""The rows of the table: named lists of --set overrides on one base configuration.

Every row ends at the plan's shape after the plan's number of steps; only the way there differs. Rows that move stages about are
made from the base's own stage lines, whose syntax prune/compress/stages.h has: "kinds [components] | iterations N | steps N"."""
import typing

KINDS = ("blocks", "inner", "hidden", "queries")


class RowError(Exception):
    pass


class Base(typing.NamedTuple):
    """What the rows vary (plan.py reads it from a run of the base configuration)."""
    stages: list        # lines, as configured
    iterations: int     # prunings until the final shape
    steps: int          # of distillation in those iterations, all together
    finish: int         # ... and behind them
    shape: list         # the final shape by hand, as words for --set
    config: dict        # resolved: "loss.kl" -> "1"


class Row(typing.NamedTuple):
    name: str           # of its directory
    title: str          # in the table
    sets: list          # words for --set


def kinds_of(line):
    return line.split("|")[0].split()[0].split("+")


def reordered(base, first, before):
    """The stages that touch `first` moved in front of the first one that touches `before` (None: of all)."""
    moved = [s for s in base.stages if first in kinds_of(s)]
    others = [s for s in base.stages if first not in kinds_of(s)]
    at = next((i for i, s in enumerate(others) if before is None or before in kinds_of(s)), len(others))
    stages = others[:at] + moved + others[at:]
    if stages == base.stages:
        raise RowError("the base configuration has its stages in this order already")
    return [stages_set(stages)]


def hidden_first(base):
    return reordered(base, "hidden", None)


def inner_first(base):
    return reordered(base, "inner", "blocks")


def merged(base):
    """As many iterations and steps as the base has, all of one stage. Steps that do not divide evenly: the last ones have one more."""
    if len(base.stages) == 1:
        raise RowError("the base configuration has a single stage already")
    each, more = divmod(base.steps, base.iterations)
    parts = [(base.iterations - more, each), (more, each + 1)]
    return [stages_set(f"{every_kind(base)} | iterations {n} | steps {steps}" for n, steps in parts if n)]


def one_shot(base):
    if base.iterations == 1:
        raise RowError("the base configuration has a single iteration already")
    return [stages_set([f"{every_kind(base)} | iterations 1 | steps {base.steps}"])]


def every_kind(base):
    found = {kind for s in base.stages for kind in kinds_of(s)}
    return "+".join(k for k in KINDS if k in found)


def stages_set(lines):
    return f"stages=[{', '.join(lines)}]"


# name, title, words for --set (or a function of the base that returns them). The first is what the others are compared with.
ROWS = (
    ("full", "full method", []),
    ("no-nll", "without the label loss (nll)", ["loss.nll=0"]),
    ("no-kl", "without softened answers (kl)", ["loss.kl=0"]),
    ("no-pair", "without order and margins of labels (pair)", ["loss.pair=0"]),
    ("no-relation", "without relations between samples (relation)", ["loss.relation=0"]),
    ("no-hidden", "without hidden states (hidden)", ["loss.hidden=0", "loss.finish_hidden=0"]),
    ("hidden-first", "hidden widths first", hidden_first),
    ("inner-first", "inside blocks before whole blocks", inner_first),
    ("merged", "all stages merged", merged),
    ("one-shot", "everything in one iteration", one_shot),
    ("magnitude", "importance: magnitude", ["importance.method=magnitude"]),
    ("activation", "importance: activation", ["importance.method=activation"]),
    ("random", "importance: random", ["importance.method=random"]),
    ("blocks-from-end", "blocks from the end", ["importance.blocks=end"]),
    ("no-recombined", "without recombined ads", ["data.recombined=0"]),
    ("no-unlabelled", "without ads that have no label", ["data.unlabelled_ads=0", "data.unlabelled=0"]),
    ("scratch", "from scratch, distilled", ["start=scratch"]),
    ("scratch-labels", "from scratch, labels only",
     ["start=scratch", "loss.nll=1", "loss.kl=0", "loss.pair=0", "loss.relation=0", "data.recombined=0",
      "data.unlabelled_ads=0", "data.unlabelled=0"]),
)
NAMES = tuple(name for name, *_ in ROWS)


def same_value(a, b):
    try:
        return float(a) == float(b)
    except ValueError:
        return a == b


def changes_something(base, sets):
    return any(not same_value(base.config.get(key, ""), value) for key, value in (s.split("=", 1) for s in sets))


def make(base, names):
    """The built-in rows of these names, in the table's order, and why others of them cannot be: (rows, ["name: reason"])."""
    made, left_out = [], []
    for name, title, sets in ROWS:
        if name not in names:
            continue
        try:
            sets = sets(base) if callable(sets) else sets
            if sets and not changes_something(base, sets):
                raise RowError(f"the base configuration has {' '.join(sets)} already")
            made.append(Row(name, title, sets))
        except RowError as e:
            left_out.append(f"{name}: {e}")
    return made, left_out
