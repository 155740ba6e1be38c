"""What was asked, what was measured, and whether that is enough; as a table for people and a document for programs."""
import dataclasses
import json
import os


@dataclasses.dataclass
class Criterion:
    what: str
    asked: str
    measured: str
    met: bool
    speed: bool = False  # about time: depends on the machine, and is not judged with --no-speed


class Verdict:
    """The criteria of one scenario, and what else is worth telling."""

    def __init__(self, scenario, judge_speed):
        self.scenario, self.judge_speed = scenario, judge_speed
        self.criteria, self.notes, self.figures = [], [], {}

    def add(self, what, asked, measured, met, speed=False):
        self.criteria.append(Criterion(what, asked, measured, bool(met), speed))

    def none(self, what, found):
        """Of these there must be none; found is a number, or a list of which the first is told."""
        count = found if isinstance(found, int) else len(found)
        first = "" if isinstance(found, int) or not found else f": {found[0]}"
        self.add(what, "0", f"{count}{first}", count == 0)

    def note(self, text):
        self.notes.append(text)

    def is_judged(self, c):
        return self.judge_speed or not c.speed

    def met(self):
        return bool(self.criteria) and all(c.met for c in self.criteria if self.is_judged(c))

    def word(self, c):
        return ("yes" if c.met else "**NO**") if self.is_judged(c) else "not judged"

    def markdown(self):
        rows = [(c.what, c.asked, c.measured, self.word(c)) for c in self.criteria]
        lines = [f"## {self.scenario}", "", "| | asked | measured | met |", "|---|---|---|---|"]
        lines += ["| " + " | ".join(x.replace("|", "\\|").replace("\n", " ") for x in row) + " |" for row in rows]
        lines += [""] + self.notes + ([""] if self.notes else [])
        return "\n".join(lines) + "\n"

    def document(self):
        criteria = [{**dataclasses.asdict(c), "judged": self.is_judged(c)} for c in self.criteria]
        return {"scenario": self.scenario, "met": self.met(), "criteria": criteria, "notes": self.notes, "figures": self.figures}


def write_json(path, document):
    with open(path + ".writing", "w", encoding="utf-8") as f:
        json.dump(document, f, ensure_ascii=False, indent=1)
        f.write("\n")
    os.rename(path + ".writing", path)
