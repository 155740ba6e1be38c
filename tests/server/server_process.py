"""A running winnow-serve for tests: started, asked over HTTP, stopped and looked over. And the frame that runs test_* functions.

What a test program was given stands in RUN; run_tests() fills it. Nothing here knows what is tested. Standard library only.
"""
import argparse
import concurrent.futures
import http.client
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
SAMPLES = os.path.join(HERE, "..", "samples", "test")
FILES = os.path.join(HERE, "cases", "files")
BUNDLED = os.path.abspath(os.path.join(HERE, "..", "..", "registry"))
GENEROUS = ("inference.deadline=50s", "inference.max_deadline=60s")


class Run:
    """One run of a test program: the programs under test, a directory that goes with it, and how patient to be."""
    serve = prune = promtool = shims = only = work = None
    slow = 1  # tests under a sanitizer wait this many times longer
    tsan = False

    def take_server(self, serve):
        self.serve = serve
        with open(serve, "rb") as f:
            binary = f.read()
        self.tsan = b"__tsan_init" in binary
        self.slow = 4 if self.tsan or b"__asan_init" in binary else 1


RUN = Run()


# ---- checks ----

def log(message):
    print(message, flush=True)


def check(condition, message=""):
    if not condition:
        raise AssertionError(message)


def same(found, expected, what):
    check(found == expected, f"{what}: found {found!r}, expected {expected!r}")


def wait_for(condition, seconds=20, what="condition"):
    end = time.monotonic() + seconds * RUN.slow
    while not condition():
        check(time.monotonic() < end, f"{what} did not come true in {seconds * RUN.slow} s")
        time.sleep(0.01)


# ---- bodies ----

def read_file(*path):
    with open(os.path.join(*path), "rb") as f:
        return f.read()


def good_image():
    return read_file(FILES, "good.png")


def multipart(fields, boundary="----winnow7MA4YWxkTrZu0gW"):
    out = bytearray()
    for name, value in fields:
        value = value.encode() if isinstance(value, str) else value
        filename = '; filename="ad.jpg"' if name == "image" else ""
        out += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{filename}\r\n\r\n'.encode() + value + b"\r\n"
    out += f"--{boundary}--\r\n".encode()
    return bytes(out), f"multipart/form-data; boundary={boundary}"


def audit_bytes(image, text, head=()):
    """A whole audit request as it goes over the wire: (head, body)."""
    body, kind = multipart([("image", image), ("text", text)])
    lines = ["POST /v1/audit HTTP/1.1", "Host: x", *head, f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode(), body


def hang_up(sock):
    """RST instead of FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


# ---- the server ----

class Server:
    """Leaving the context stops it and checks that it drained, exited 0 and said nothing odd.

    By default on RUN.work/registry with the model "tiny"; registry and name say another, model_dir one directory alone.
    """
    odd = ("Sanitizer", "runtime error", "panic", " ERROR ")

    def __init__(self, *settings, registry=None, name="tiny", model_dir=None, env=None, extra=()):
        command = [RUN.serve, "--listen", "127.0.0.1:0"]
        if model_dir:
            command += ["--model-dir", model_dir]
        else:
            command += ["--registry", registry or os.path.join(RUN.work, "registry"), "--set", f"model.name={name}"]
        for s in settings:
            command += ["--set", s]
        command += extra
        # Read through their names: a descriptor shared with the server would share its write position too.
        self.output = tempfile.mkdtemp(dir=RUN.work)
        environment = {k: v for k, v in dict(os.environ, **(env or {})).items() if v is not None}
        with open(os.path.join(self.output, "stdout"), "ab") as out, open(os.path.join(self.output, "stderr"), "ab") as err:
            self.process = subprocess.Popen(command, stdout=out, stderr=err, env=environment)
        self.port = self.wait_for_port()

    def wait_for_port(self):
        deadline = time.monotonic() + 60 * RUN.slow
        while True:
            found = re.search(r"listening on \S+ port (\d+)", self.errors())
            if found:
                return int(found.group(1))
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                self.process.wait()
                raise AssertionError("the server did not start: " + self.errors())
            time.sleep(0.02)

    @property
    def pid(self):
        return self.process.pid

    @property
    def admin_port(self):
        return int(re.search(r"administration on \S+ port (\d+)", self.errors()).group(1))

    # What it said.

    def errors(self):
        return read_file(self.output, "stderr").decode()

    def access_log(self):
        text = read_file(self.output, "stdout").decode()
        return [json.loads(line) for line in text[:text.rfind("\n") + 1].splitlines()]

    def logged(self, request_id):
        """The access-log line of a request; it is written by another thread, soon."""
        for _ in range(200):
            for line in self.access_log():
                if line["request_id"] == request_id:
                    return line
            time.sleep(0.02)
        raise AssertionError(f"no access-log line for {request_id}")

    # What it answers.

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def request(self, method, path, body=None, headers=None, chunked=False, port=None):
        """With exactly these headers, and chunked if asked to."""
        c = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=60)
        try:
            if chunked:
                parts = [body[i:i + 65536] for i in range(0, len(body), 65536)]
                c.request(method, path, iter(parts), headers or {}, encode_chunked=True)
            else:
                c.putrequest(method, path)
                if body is not None:
                    c.putheader("Content-Length", str(len(body)))
                for k, v in (headers or {}).items():
                    c.putheader(k, v)
                c.endheaders(body)
            return answer_of(c)
        finally:
            c.close()

    def ask(self, method, path, key=None, port=None, body=None, headers=None, tls=None):
        """As a client with a key would, over either listener, and over TLS if a context is given."""
        port = port or self.port
        c = (http.client.HTTPSConnection("localhost", port, timeout=60, context=tls) if tls
             else http.client.HTTPConnection("127.0.0.1", port, timeout=60))
        try:
            c.request(method, path, body, {**({"X-Api-Key": key} if key else {}), **(headers or {})})
            return answer_of(c)
        finally:
            c.close()

    def audit(self, image, text="", headers=None, **fields):
        body, kind = multipart([("image", image), ("text", text)] + list(fields.items()))
        return self.request("POST", "/v1/audit", body, {"Content-Type": kind, **(headers or {})})

    def ask_audit(self, text="x", key=None, **kwargs):
        body, kind = multipart([("image", good_image()), ("text", text)])
        return self.ask("POST", "/v1/audit", key, body=body, headers={"Content-Type": kind}, **kwargs)

    def metrics(self, port=None):
        status, _, body = self.request("GET", "/metrics", port=port)
        same(status, 200, "/metrics")
        return {m.group(1): float(m.group(2)) for m in re.finditer(r"^([a-z_]+(?:\{[^}]*\})?) (\S+)$", body.decode(), re.M)}

    def settled_metrics(self):
        """A request is counted after its answer has left: wait until none is between the two."""
        wait_for(lambda: self.metrics()["winnow_requests_in_flight"] == 0, what="nothing in flight")
        return self.metrics()

    # What it takes.

    def resident_bytes(self):
        """(all, of it anonymous: heap, stacks, models; the rest are pages of files and what it shares with its decoder)."""
        _, resident, shared = read_file("/proc", str(self.pid), "statm").split()[:3]
        page = os.sysconf("SC_PAGESIZE")
        return int(resident) * page, (int(resident) - int(shared)) * page

    def open_descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    # Its end.

    def reload(self, expected):
        """SIGHUP, and the line that says what came of it."""
        before = self.errors()
        self.process.send_signal(signal.SIGHUP)
        wait_for(lambda: expected in self.errors()[len(before):], what=expected)

    def stop(self, sig=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(sig)
        code = self.process.wait(timeout=60 * RUN.slow)
        errors = self.errors()
        same(code, 0, f"exit code; it said {errors}")
        for bad in self.odd:
            check(bad not in errors, errors)
        return errors

    def __enter__(self):
        return self

    def __exit__(self, kind, *rest):
        if kind:
            self.process.kill()
            self.process.wait()
            print("\n".join(self.errors().splitlines()[-40:]), file=sys.stderr, flush=True)
        else:
            self.stop()


class TroubledServer(Server):
    """One that may log errors: what goes wrong around it is the test."""
    odd = ("Sanitizer", "runtime error")


def answer_of(connection):
    r = connection.getresponse()
    return r.status, dict((k.lower(), v) for k, v in r.getheaders()), r.read()


def run_failing(*arguments, **kwargs):
    """A start that must not succeed: (exit code, stderr)."""
    out = subprocess.run([RUN.serve, *arguments], capture_output=True, timeout=60 * RUN.slow,
                         **{**kwargs, "env": dict(os.environ, **(kwargs.get("env") or {}))})
    return out.returncode, out.stderr.decode()


def classify(image_path, text, assist="", model=None):
    """What `winnow-prune classify` says, without a server."""
    model = model or os.path.join(RUN.work, "registry", "tiny", "2")
    command = [RUN.prune, "classify", "--model", model, "--image", image_path, "--text", text]
    out = subprocess.run(command + (["--assist", assist] if assist else []), capture_output=True, check=True)
    return json.loads(out.stdout)


def parallel(server, count, headers=None):
    image = good_image()
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda i: server.audit(image, str(i), headers), range(count)))


def check_promtool(text):
    """Where promtool is installed, it finds nothing to say about these metrics."""
    if RUN.promtool:
        out = subprocess.run([RUN.promtool, "check", "metrics"], input=text, capture_output=True)
        check(out.returncode == 0 and not out.stderr, out.stderr.decode())


# ---- the frame ----

def parse_arguments(description):
    ap = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--serve", required=True)
    ap.add_argument("--prune", required=True)
    ap.add_argument("--promtool", default="")
    ap.add_argument("--shims", default="")
    ap.add_argument("--only", default="", help="tests with this in their name")
    a = ap.parse_args()
    RUN.take_server(a.serve)
    RUN.prune, RUN.promtool, RUN.shims, RUN.only = a.prune, a.promtool, a.shims, a.only


class NotTried(Exception):
    """What the program under test was built without."""


def run_one(name, test):
    start = time.monotonic()
    try:
        test()
        log(f"ok   {name} ({time.monotonic() - start:.1f} s)")
        return 0
    except NotTried as e:
        log(f"skip {name}: {e}")
        return 0
    except Exception:  # a test's failure, whatever it is, must not hide the others
        log(f"FAIL {name}\n{traceback.format_exc()}")
        return 1


def run_tests(namespace, prepare):
    """Every test_* of the module, in the order written, after prepare(); exits with 1 when one fails."""
    parse_arguments(namespace["__doc__"])
    RUN.work = tempfile.mkdtemp(prefix="winnow-test-")
    try:
        prepare()
        tests = [(n, t) for n, t in namespace.items() if n.startswith("test_") and RUN.only in n]
        failed = sum(run_one(n, t) for n, t in tests)
    finally:
        shutil.rmtree(RUN.work)
    sys.exit(1 if failed else 0)
