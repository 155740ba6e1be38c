"""All variants in one session: each is begun, then every round runs each of them once.

Rounds begin with the next variant each time, and every second one goes the other way, so that nobody always follows the same one or
finds the machine as the same one left it. A variant that fails is named and leaves; the others go on."""
import sys
import time

from . import child
from . import contenders as kinds


def duration(seconds):
    seconds = int(seconds + 0.5)
    return f"{seconds}s" if seconds < 60 else f"{seconds // 60}m{seconds % 60:02d}s" if seconds < 3600 else \
        f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"


class Progress:
    """One rewritten line on a terminal, a plain line a round in a log."""

    def __init__(self):
        self.terminal, self.width = sys.stderr.isatty(), 0

    def note(self, line):
        self.clear()
        print(line, file=sys.stderr, flush=True)

    def rewrite(self, line):
        if self.terminal:
            print("\r" + line.ljust(self.width), end="", file=sys.stderr, flush=True)
            self.width = len(line)

    def clear(self):
        if self.width:
            print("\r" + " " * self.width + "\r", end="", file=sys.stderr)
            self.width = 0


def order(items, round):
    turned = items[round % len(items):] + items[:round % len(items)]
    return turned[::-1] if round % 2 else turned


class Session:
    def __init__(self, contenders, rounds, requests, progress):
        self.all, self.rounds, self.requests, self.progress = contenders, rounds, requests, progress
        self.seconds = {}           # of each one's turns so far

    def attempt(self, contender, what, *args):
        """What it returns; None when it failed, which the contender remembers."""
        try:
            return what(*args)
        except kinds.Unavailable as e:
            contender.missing = str(e)
            self.progress.note(f"{contender.name} is not to be had here: {e}")
        except (child.ChildError, OSError, ValueError, KeyError) as e:
            contender.failed = str(e) if isinstance(e, child.ChildError) else f"{contender.name}: {type(e).__name__}: {e}"
            self.progress.note(f"FAILED {contender.failed}")
        contender.end()
        return None

    def taking_part(self):
        return [c for c in self.all if c.takes_part()]

    def begin(self, prepare):
        """prepare(contender): makes what it needs."""
        for contender in self.all:
            self.attempt(contender, prepare, contender)
        for contender in self.taking_part():
            self.progress.rewrite(f"loading {contender.name}")
            self.attempt(contender, contender.begin)
        one_at_a_time = [c.name for c in self.taking_part() if not c.resident]
        if one_at_a_time:
            self.progress.note(f"memory is short: loaded for each turn: {', '.join(one_at_a_time)}")

    def left(self, todo):
        """Seconds, as far as turns so far tell: todo is what is left of this round."""
        known = [s for seconds in self.seconds.values() for s in seconds]
        if not known:
            return None
        usual = sum(known) / len(known)

        def of(contender):
            seconds = self.seconds.get(contender.name)
            return sum(seconds) / len(seconds) if seconds else usual
        rounds_left = self.rounds - self.round - 1
        return sum(map(of, todo)) + rounds_left * sum(map(of, self.taking_part()))

    def turn(self, contender, number, todo):
        left = self.left(todo)
        self.progress.rewrite(f"round {number + 1}/{self.rounds}  {contender.name}" + (f"  {duration(left)} left" if left else ""))
        began = time.monotonic()
        figures = self.attempt(contender, contender.turn, self.requests)
        if figures:
            contender.turns.append({"round": number + 1, **figures})
            kinds.settle()
            self.seconds.setdefault(contender.name, []).append(time.monotonic() - began)

    def run(self):
        for self.round in range(self.rounds):
            todo = order(self.taking_part(), self.round) if self.taking_part() else []
            for i, contender in enumerate(todo):
                self.turn(contender, self.round, todo[i:])
            left = self.left([])
            if left and not self.progress.terminal:
                self.progress.note(f"round {self.round + 1}/{self.rounds} done, {duration(left)} left")
        self.progress.clear()

    def end(self):
        for contender in self.all:
            contender.end()
