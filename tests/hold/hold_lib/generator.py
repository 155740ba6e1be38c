"""winnow-load as a child: one run of it, or its search for the highest rate."""
import json
import os
import signal
import subprocess
import tempfile
import time

DONE = (0, 1, 3, 130)  # met, missed, "I was too slow to tell", interrupted: each leaves a report


class GeneratorError(Exception):
    pass


def patience(o):
    """Where speed is not judged a line forms here, not in the server: few connections, and much time."""
    timeout = max(10, 2 * o.deadline_ms / 1e3)
    return ["--timeout", f"{timeout:g}s"] if o.speed else ["--timeout", f"{max(600, timeout):g}s", "--connections", "8"]


class Generator:
    """A run under way. result() waits for its end; stop() ends it early, with the report of what was measured."""

    def __init__(self, stage, *arguments, answers=True):
        self.report = tempfile.mktemp(suffix=".json", dir=stage.work)
        self.errors = self.report + ".errors"
        command = [stage.options.generator, "--url", f"http://127.0.0.1:{stage.server.port}", "--ads", stage.ads, "--quiet",
                   "--target-ms", str(stage.options.deadline_ms), "--deadline-ms", str(stage.options.deadline_ms),
                   "--json", self.report, *patience(stage.options)]
        command += ["--answers", stage.known] if answers else []
        with open(self.errors, "wb") as err:
            self.process = subprocess.Popen(command + [str(a) for a in arguments], stdout=subprocess.DEVNULL, stderr=err)
        stage.children.append(self.process)

    def is_running(self):
        return self.process.poll() is None

    def hears_signals(self):
        """It has come so far that an interrupt ends it with a report."""
        with open(f"/proc/{self.process.pid}/status", encoding="ascii", errors="replace") as f:
            caught = next((line.split()[1] for line in f if line.startswith("SigCgt:")), "0")
        return int(caught, 16) >> (signal.SIGINT - 1) & 1

    def stop(self):
        while self.is_running() and not self.hears_signals():
            time.sleep(0.01)
        if self.is_running():
            self.process.send_signal(signal.SIGINT)
        return self.result()

    def result(self):
        code = self.process.wait()
        if code not in DONE or not os.path.exists(self.report) or not os.path.getsize(self.report):
            with open(self.errors, encoding="utf-8", errors="replace") as f:
                raise GeneratorError(f"winnow-load ended with {code}: {f.read().strip()}")
        with open(self.report, encoding="utf-8") as f:
            return json.load(f)


def run(stage, rate, seconds, *arguments, warmup=1):
    """One run from its beginning to its end: the report."""
    return Generator(stage, "--rate", f"{rate:.4g}", "--duration", f"{seconds:.3g}s", "--warmup", f"{warmup}s", *arguments).result()


def find_max(stage, arrivals):
    """The highest rate at which 99 % of all requests are answered within the deadline."""
    o = stage.options
    stage.say(f"looking for the highest rate ({arrivals} arrivals, trials of {o.trial:g} s)")
    report = Generator(stage, "--find-max", "--arrivals", arrivals, "--duration", f"{o.trial:g}s").result()
    rate = report["find_max"]["max_rate"]
    if not rate:
        raise GeneratorError("no rate met the deadline: " + report["conclusion"])
    stage.say(f"highest rate: {rate:.4g}/s ({report['find_max']['end']})")
    return rate


def failures(reports, speed=True):
    """["429 x 3: The queue is full", …] of requests that were due and not answered. What still waited when a run was stopped has failed
    where speed is judged, since it was late by then."""
    out = []
    for r in reports:
        out += [f"{o['outcome']} x {o['latency_ms']['count']}: {o.get('first', '')}" for o in r["run"]["outcomes"]
                if not o["outcome"].startswith("2") and (speed or o["outcome"] != "unfinished")]
    return out


def total(reports, name):
    return sum(r["run"]["requests"][name] for r in reports)
