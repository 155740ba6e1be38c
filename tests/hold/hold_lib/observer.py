"""Looks at a running server all the while: memory, descriptors, liveness; and at what the machine's host takes from both."""
import http.client
import math
import os
import statistics
import threading
import time

TREND_SPAN = 10  # seconds, of which the least counts


def stolen_s():
    """Seconds of all processors that a virtual machine's host gave to others."""
    with open("/proc/stat", encoding="ascii") as f:
        return int(f.readline().split()[8]) / os.sysconf("SC_CLK_TCK")


class Observer:
    """Samples (seconds since its start, (resident bytes, of them anonymous), open descriptors); and asks for liveness every time."""

    def __init__(self, server, every=0.2):
        self.server, self.every = server, every
        self.samples, self.alive, self.not_alive, self.slowest_alive_s = [], 0, [], 0.0
        self.stolen = []  # one more than samples
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.watch)

    def __enter__(self):
        self.start = time.monotonic()
        self.stolen.append(stolen_s())
        self.thread.start()
        return self

    def __exit__(self, *rest):
        self.over.set()
        self.thread.join()

    def now(self):
        return time.monotonic() - self.start

    def watch(self):
        while not self.over.wait(self.every):
            try:
                self.samples.append((self.now(), self.server.resident_bytes(), self.server.open_descriptors()))
                self.stolen.append(stolen_s())
                self.ask_for_liveness()
            except (OSError, ValueError) as e:  # the process is gone
                self.not_alive.append(repr(e))

    def ask_for_liveness(self):
        begun = time.monotonic()
        try:
            status = self.server.request("GET", "/v2/health/live")[0]
        except (OSError, http.client.HTTPException) as e:
            status = repr(e)
        self.slowest_alive_s = max(self.slowest_alive_s, time.monotonic() - begun)
        if status == 200:
            self.alive += 1
        else:
            self.not_alive.append(f"{status} at {self.now():.1f} s")

    def resident(self, span):
        """The least that was resident between two moments, and the least of anonymous memory: a version being loaded, requests that wait
        come and go, a leak stays."""
        inside = [memory for t, memory, _ in self.samples if span[0] <= t <= span[1]]
        return tuple(min(kind) for kind in zip(*inside))

    def trend(self, begin, end):
        """What a straight line through the least resident bytes of every TREND_SPAN grows by from begin to end, as a share of where it
        begins, and the standard error of that. None: too short."""
        least = {}
        for t, (resident, _), _ in self.samples:
            if begin <= t <= end:
                span = int((t - begin) / TREND_SPAN)
                least[span] = min(resident, least.get(span, resident))
        if len(least) < 4:
            return None
        x, y = [TREND_SPAN * span for span in least], list(least.values())
        slope, start = statistics.linear_regression(x, y)
        off = sum((b - start - slope * a) ** 2 for a, b in zip(x, y)) / (len(x) - 2)
        error = math.sqrt(off / (statistics.pvariance(x) * len(x)))
        return slope * (end - begin) / start, error * (end - begin) / start

    def timeline(self, points=40):
        """[[seconds, resident bytes, of them anonymous, open descriptors], …], evenly spread."""
        step = max(1, len(self.samples) // points)
        return [[round(t, 1), *memory, n] for t, memory, n in self.samples[::step]]

    def note_stolen(self, verdict):
        most = max(b - a for a, b in zip(self.stolen, self.stolen[1:]))
        verdict.note(f"The machine's host gave {self.stolen[-1] - self.stolen[0]:.2f} s of its processors to others, at most {1e3 * most:.0f} ms "
                     f"between two looks ({1e3 * self.every:.0f} ms apart).")

    def judge_memory(self, verdict, what, early, late, tolerance):
        """Of two spans of time the late one may hold so much more than the early one."""
        (before, own_before), (after, own_after) = self.resident(early), self.resident(late)
        growth = after / before - 1
        verdict.add(what, f"at most +{100 * tolerance:g} %", f"{100 * growth:+.2f} % ({before / 1e6:.1f} to {after / 1e6:.1f} MB)", growth <= tolerance)
        verdict.note(f"Of its memory anonymous: {own_before / 1e6:.1f} MB, then {own_after / 1e6:.1f} MB ({100 * (own_after / own_before - 1):+.2f} %).")
        found = self.trend(early[0], late[1])
        if found:
            verdict.note(f"A straight line through the least of every {TREND_SPAN} s of the whole time grows by {100 * found[0]:+.2f} % "
                         f"(standard error {100 * found[1]:.2f} %).")
        self.note_stolen(verdict)
        verdict.figures.update(rss_early_bytes=before, rss_late_bytes=after, anonymous_early_bytes=own_before, anonymous_late_bytes=own_after,
                               timeline=self.timeline())


def fewest_descriptors(server, until=0, seconds=30):
    """The least of open descriptors that is seen; ends early at `until`. Connections and loads under way come and go, a leak stays."""
    least, end = server.open_descriptors(), time.monotonic() + seconds
    while least > until and time.monotonic() < end:
        time.sleep(0.2)
        least = min(least, server.open_descriptors())
    return least
