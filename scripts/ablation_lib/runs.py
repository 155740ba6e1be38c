"""One run of `winnow-prune compress`: started or continued in its directory, watched, and read.

DIR/ is an ordinary run directory (docs/compress.md), and beside that
    settings.json   what it was started with; a directory of other settings is refused, not continued
    output.txt      what the program said

A run is finished when its log ends with a final event. The program gets a session of its own, so that a Ctrl-C reaches it once,
from here. If this process is killed, the program goes on; the next one waits for it."""
import fcntl
import hashlib
import json
import os
import signal
import subprocess
import time

from . import plan

POLL = 0.5              # seconds
TAIL = 1 << 16          # bytes of a log that hold its last events


class RunError(Exception):
    pass


class Stopped(Exception):
    """SIGINT, SIGTERM or SIGHUP."""


def tail_events(path):
    """The log's last events, newest first; a line that a kill cut short is no event."""
    try:
        with open(path, "rb") as f:
            f.seek(max(0, os.fstat(f.fileno()).st_size - TAIL))
            lines = f.read().split(b"\n")
    except OSError:
        return
    for line in reversed(lines):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            yield event


class Program:
    """What all runs share."""

    def __init__(self, executable, config, sets, cache, threads):
        self.executable, self.config, self.sets, self.cache, self.threads = executable, config, sets, cache, threads
        with open(config, "rb") as f:
            self.digest = hashlib.sha256(f.read()).hexdigest()

    def command(self, directory, sets, options):
        words = [f"threads={self.threads}", *self.sets, *sets, f"run_dir={directory}", f"data.cache={self.cache}"]
        return [self.executable, "compress", "--config", self.config, "--resume", *options,
                *(part for word in words for part in ("--set", word))]


class Run:
    def __init__(self, program, directory, sets, options=()):
        self.program, self.directory, self.sets, self.options = program, directory, sets, options

    def path(self, name):
        return os.path.join(self.directory, name)

    def final(self):
        """The final event, or None."""
        event = next(tail_events(self.path("log.jsonl")), None)
        return event if event and event.get("event") == "final" else None

    def steps_done(self):
        return next((e.get("step", 0) for e in tail_events(self.path("log.jsonl")) if e.get("event") == "step"), 0)

    def plan(self):
        return plan.Plan(self.directory)

    def check_settings(self):
        """Notes them in a directory where nothing was made yet; RunError in one of other settings."""
        settings = {"config_sha256": self.program.digest, "set": self.program.sets + self.sets}
        path = self.path("settings.json")
        os.makedirs(self.directory, exist_ok=True)
        if os.path.exists(path) and os.path.exists(self.path("manifest.json")):
            if plan.read_json(path) != settings:
                raise RunError(f"{self.directory} was made with other settings: choose another --run, or remove it")
            return
        with open(path + ".writing", "w", encoding="utf-8") as f:
            json.dump(settings, f, ensure_ascii=False, indent=1)
            f.write("\n")
        os.rename(path + ".writing", path)

    def wait_for_others(self, note):
        """The program of a killed predecessor may still work here."""
        with open(self.path("lock"), "a+b") as f:
            waiting = False
            while True:
                try:
                    fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return
                except OSError:
                    if not waiting:
                        note(f"another process works in {self.directory}: waiting for it")
                    waiting = True
                    time.sleep(POLL)

    def start(self):
        """The program at work: poll() it until it has ended, or end() it, resumable."""
        with open(self.path("output.txt"), "ab") as output:
            began = output.seek(0, os.SEEK_END)
            child = subprocess.Popen(self.program.command(self.directory, self.sets, self.options), stdin=subprocess.DEVNULL,
                                     stdout=output, stderr=output, start_new_session=True)
        return Running(self, child, began)

    def execute(self):
        """Start to end."""
        running = self.start()
        try:
            while not running.poll():
                time.sleep(POLL)
        except BaseException:
            running.end()
            raise

    def last_line(self, began):
        with open(self.path("output.txt"), "rb") as f:
            f.seek(began)
            lines = f.read().decode("utf-8", "replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


class Running:
    def __init__(self, run, child, began):
        self.run, self.child, self.began = run, child, began

    def poll(self):
        """Whether it has ended; RunError with the program's last line when it failed."""
        code = self.child.poll()
        if code:
            name = os.path.basename(self.run.program.executable)
            raise RunError(self.run.last_line(self.began) or f"{name} ended with code {code}")
        return code == 0

    def end(self):
        """The first signal lets the program save; a second Ctrl-C does not wait for that."""
        try:
            self.child.send_signal(signal.SIGINT)
            self.child.wait()
        except Stopped:
            self.child.kill()
            self.child.wait()
