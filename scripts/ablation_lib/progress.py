"""Where the whole table stands: one rewritten line on a terminal, a plain line now and then in a log."""
import sys
import time

LOG_SECONDS = 15


def duration(seconds):
    seconds = int(seconds + 0.5)
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"


class Progress:
    """Counts steps of distillation: every run has the same number."""

    def __init__(self, total):
        self.left = total           # steps when we began
        self.done = 0               # since then, in runs that ended
        self.began = time.monotonic()
        self.shown = self.began     # the first line waits until there is a rate worth telling
        self.terminal = sys.stderr.isatty()
        self.width = 0

    def update(self, label, steps):
        """steps: of the run at work, since we began."""
        now = time.monotonic()
        if now - self.shown < (0.3 if self.terminal else LOG_SECONDS):
            return
        self.shown = now
        done, spent = self.done + steps, now - self.began
        left = f"{duration(spent * (self.left - done) / done)} left" if done > 0 else "no estimate yet"
        line = f"{label}  {duration(spent)} gone, {left}"
        if self.terminal:
            print("\r" + line.ljust(self.width), end="", file=sys.stderr, flush=True)
            self.width = len(line)
        else:
            print(line, file=sys.stderr, flush=True)

    def note(self, line):
        if self.terminal:
            print("\r" + " " * self.width + "\r", end="", file=sys.stderr)
            self.width = 0
        print(line, file=sys.stderr, flush=True)
