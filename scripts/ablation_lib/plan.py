"""What all rows have in common, read from the run directory of the base configuration: the final shape, and how many steps."""
import json
import os

from . import rows

STACKS = ("vision", "qformer", "text")


class PlanError(Exception):
    pass


def read_json(path):
    try:
        with open(path, encoding="utf-8") as f:
            return json.load(f)
    except (OSError, ValueError) as e:
        raise PlanError(f"{path}: {e}") from None


def stack_sets(name, stack, teacher):
    """--set words that make the program take this stack (as plan.json describes it) without a planner."""
    if stack == teacher:
        return []
    blocks = stack["blocks"]
    widths = {(b["num_heads"], b["head_dim"], b["ffn_dim"]) for b in blocks}
    cross = {(b["cross_num_heads"], b["cross_head_dim"]) for b in blocks if b["cross_num_heads"]}
    heads, head_dim, ffn = next(iter(widths))
    if len(widths) > 1 or cross - {(heads, head_dim)}:
        raise PlanError(f"{name}: blocks (or self- and cross-attention) of different widths, which final.{name} cannot say")
    return [f"final.{name}.{key}={value}" for key, value in (
        ("num_hidden_layers", len(blocks)), ("hidden_size", stack["hidden_size"]), ("num_attention_heads", heads),
        ("head_dim", head_dim), ("intermediate_size", ffn))]


def shape_sets(final, teacher):
    sets = [word for name in STACKS for word in stack_sets(name, final[name], teacher[name])]
    return ["target.kind=none", f"final.num_query_tokens={final['num_query_tokens']}"] + sets


def flat_config(text):
    """The resolved configuration as the program prints it (two blanks a level, one key a line) by dotted key."""
    flat, path = {}, []
    for line in text.splitlines():
        key, colon, value = line.strip().partition(":")
        if not colon or key.startswith("#"):
            continue
        depth = (len(line) - len(line.lstrip(" "))) // 2
        path[depth:] = [key]
        if value.strip():
            flat[".".join(path)] = value.strip()
    return flat


class Plan:
    """RUN/plan: plan.json and manifest.json of a run of the base configuration, or of a row."""

    def __init__(self, directory):
        plan = read_json(os.path.join(directory, "plan.json"))
        manifest = read_json(os.path.join(directory, "manifest.json"))
        try:
            self.identity = manifest["identity"]
            self.widths = plan["final"]["widths"]
            self.parameters = plan["final"]["parameters"]
            self.steps = sum(i["steps"] for i in plan["iterations"])
            self.config = flat_config(manifest["config"])
            self.iterations = plan["iterations"]
            self.teacher_widths = plan["teacher"]["widths"]
        except (KeyError, TypeError) as e:
            raise PlanError(f"{directory}: plan.json or manifest.json lacks {e}") from None

    def base(self):
        pruning = [i for i in self.iterations if i["stage"] >= 0]
        if not pruning:
            raise PlanError("start: scratch, expected a base configuration that prunes")
        steps = sum(i["steps"] for i in pruning)
        return rows.Base(stages=self.identity["stages"], iterations=len(pruning), steps=steps, finish=self.steps - steps,
                         shape=shape_sets(self.widths, self.teacher_widths), config=self.config)

    def unlike(self, other):
        """Why the two cannot stand in one table; None when they can."""
        if self.identity["teacher"] != other.identity["teacher"]:
            return "it has another teacher than the other rows"
        if self.identity["data"]["train"] != other.identity["data"]["train"]:
            return "it has other labelled ads than the other rows"
        if self.widths != other.widths:
            return "its final shape is not that of the other rows"
        if self.steps != other.steps:
            return f"it distils for {self.steps} steps, the other rows for {other.steps}"
        return None
