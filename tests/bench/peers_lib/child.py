"""A program that the driver starts, asks and ends. It gets a session of its own, so that a Ctrl-C reaches it once, from here; what it
says on stderr goes to a log, whose last line is the reason when it fails. Peers that read requests end with their input, so they do
not outlive a driver that was killed."""
import json
import os
import signal
import subprocess

PATIENCE = 3        # seconds for what was asked to end


class ChildError(Exception):
    pass


class Stopped(Exception):
    """SIGINT, SIGTERM or SIGHUP."""


def last_line(path):
    with open(path, "rb") as f:
        lines = f.read().decode("utf-8", "replace").replace("\r", "\n").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


class Child:
    def __init__(self, name, words, log):
        self.name, self.log = name, log
        os.makedirs(os.path.dirname(log), exist_ok=True)
        with open(log, "wb") as said:
            try:
                self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True,
                                                start_new_session=True)
            except OSError as e:
                raise ChildError(f"{name}: {words[0]}: {e.strerror}") from None

    def answer(self):
        """Its next line, as JSON."""
        line = self.process.stdout.readline()
        if not line:
            raise self.failure()
        try:
            return json.loads(line)
        except ValueError:
            raise ChildError(f"{self.name}: found '{line.strip()[:80]}', expected a line of JSON") from None

    def ask(self, line):
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except OSError:
            raise self.failure() from None
        return self.answer()

    def wait(self):
        """To the end of a program that is asked nothing: what it printed."""
        text = self.process.communicate()[0]
        if self.process.returncode:
            raise self.failure()
        return text

    def failure(self):
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            return ChildError(f"{self.name}: closed its output and goes on ({self.log})")
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return ChildError(f"{self.name}: {how}: {last_line(self.log)} ({self.log})")

    def end(self):
        """Whatever it does."""
        try:
            self.process.stdin.close()
        except OSError:
            pass
        for number in (None, signal.SIGTERM, signal.SIGKILL):
            try:
                if number:
                    os.killpg(self.process.pid, number)
                self.process.wait(PATIENCE)
                break
            except (subprocess.TimeoutExpired, ProcessLookupError, PermissionError):
                continue
        self.process.stdout.close()


def run(name, words, log):
    """Start to end: what it printed."""
    child = Child(name, words, log)
    try:
        return child.wait()
    finally:
        child.end()
