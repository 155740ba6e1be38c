#!/usr/bin/env python3
"""winnow-load over real sockets, against stub servers that misbehave on purpose and against winnow-serve. Standard library only.

  e2e.py --load PATH/winnow-load [--serve PATH/winnow-serve] [--only NAME]

Every test is a function test_*; they run in the order written. The exit code is 1 when one fails. No test asserts a speed: bounds are
on what stubs impose (a stall of two seconds cannot look shorter), never on how fast this machine is.
"""
import argparse
import http.client
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import xml.etree.ElementTree

HERE = os.path.dirname(os.path.abspath(__file__))
SAMPLES = os.path.join(HERE, "..", "samples", "test")
REGISTRY = os.path.join(HERE, "..", "..", "registry")
ARGS = None
WORK = None
GENEROUS = ("--target-ms", "60000", "--max-lag-ms", "60000")


def check(condition, message=""):
    if not condition:
        raise AssertionError(message)


def same(found, expected, what):
    check(found == expected, f"{what}: found {found!r}, expected {expected!r}")


# ---- stub servers ----

class Request:
    def __init__(self, number, line, headers, body):
        self.number, self.line, self.headers, self.body = number, line, headers, body
        self.path = line.split(" ")[1]


def answer(status=200, body=b'{"label":"compliant"}', headers=()):
    head = [f"HTTP/1.1 {status} Status", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def reset(sock):
    """RST instead of FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class Stub:
    """An HTTP server, a thread a connection. behave(stub, sock, request) answers; it returns False to have the connection closed.
    Requests are numbered from 0, which is winnow-load's single first one."""

    def __init__(self, behave=None, family=socket.AF_INET, address="127.0.0.1"):
        self.behave = behave or (lambda stub, sock, request: sock.sendall(answer()))
        self.lock = threading.Lock()
        self.requests, self.connections, self.received = 0, 0, []
        self.listener = socket.socket(family, socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((address, 0))
        self.listener.listen(512)
        self.port = self.listener.getsockname()[1]
        self.sockets = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sockets.append(sock)
            threading.Thread(target=self.serve, args=(sock,), daemon=True).start()

    def read_request(self, stream):
        line = stream.readline().decode("latin-1").strip()
        if not line:
            return None
        headers = {}
        while field := stream.readline().decode("latin-1").strip():
            name, value = field.split(":", 1)
            check(name.lower() not in headers, f"{name} twice")
            headers[name.lower()] = value.strip()
        body = stream.read(int(headers["content-length"]))
        with self.lock:
            request = Request(self.requests, line, headers, body)
            self.requests += 1
            self.received.append(request)
        return request

    def serve(self, sock):
        stream = sock.makefile("rb")
        try:
            request = self.read_request(stream)
            if request:
                with self.lock:
                    self.connections += 1 # endpoint_find's connection asks nothing
            while request and self.behave(self, sock, request) is not False:
                request = self.read_request(stream)
        except (OSError, ValueError):
            pass
        finally:
            stream.close()
            sock.close()

    def __enter__(self):
        return self

    def close(self):
        """Nobody listens any more. A thread that blocks in accept would keep the port open until it is told."""
        with self.lock:
            if self.listener.fileno() >= 0:
                self.listener.shutdown(socket.SHUT_RDWR)
                self.listener.close()

    def __exit__(self, *rest):
        self.close()
        for sock in self.sockets:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def well(sock):
    sock.sendall(answer())


# ---- winnow-load ----

def arguments_of(target, arguments):
    url = f"http://127.0.0.1:{target.port}" if hasattr(target, "port") else target
    return [ARGS.load, "--url", url, "--ads", SAMPLES, *arguments]


def run(target, *arguments, code=0, env=None):
    """Runs winnow-load with --json; the report, with what was printed under "stdout" and "stderr"."""
    path = os.path.join(WORK, "report.json")
    if os.path.exists(path):
        os.remove(path)
    environment = {k: v for k, v in dict(os.environ, **(env or {})).items() if not k.startswith("WINNOW_") or k in (env or {})}
    out = subprocess.run(arguments_of(target, [*arguments, "--json", path]), capture_output=True, timeout=200, env=environment)
    stdout, stderr = out.stdout.decode(), out.stderr.decode()
    check("Sanitizer" not in stderr and "runtime error" not in stderr, stderr)
    if code is not None:
        same(out.returncode, code, "exit code of " + " ".join(arguments) + "\n" + stdout + stderr)
    report = {}
    if os.path.exists(path):
        with open(path, encoding="utf-8") as f:
            report = json.load(f)
    return dict(report, stdout=stdout, stderr=stderr, code=out.returncode)


def counts(report):
    """How many requests ended how."""
    return {row["outcome"]: row["latency_ms"]["count"] for row in report["run"]["outcomes"]}


# ---- the point of it all ----

class StallOnce:
    """Answers at once, but everything that comes within two seconds of the 50th request waits for their end."""
    SECONDS = 2.0

    def __init__(self):
        self.until = None

    def __call__(self, stub, sock, request):
        with stub.lock:
            if self.until is None and request.number >= 50:
                self.until = time.monotonic() + self.SECONDS
        wait = (self.until or 0) - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        well(sock)


def closed_loop(port, rate, count):
    """What a tester with one connection does: asks, waits, asks again; paced, but never two at once. Latencies in ms, from the send."""
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    latencies, due = [], time.monotonic()
    for _ in range(count):
        start = time.monotonic()
        c.request("POST", "/v1/audit", b"x")
        c.getresponse().read()
        latencies.append(1e3 * (time.monotonic() - start))
        due = max(due + 1 / rate, time.monotonic())
        time.sleep(max(0, due - time.monotonic()))
    c.close()
    return sorted(latencies)


def test_a_stall_shows_and_a_closed_loop_hides_it():
    with Stub(StallOnce()) as stub:
        report = run(stub, "--rate", "50", "--arrivals", "constant", "--duration", "6s", "--warmup", "0", code=1)
    r = report["run"]
    same(r["requests"]["scheduled"], 300, "scheduled")
    same(r["requests"]["ok"], 300, "answered")
    # The stall hits what is due in two of six seconds: a hundred requests, delayed by 2 s to 0. One in a hundred waits longer than 1.9 s.
    check(r["latency_ms"]["p99"] > 1700, r["latency_ms"])
    check(r["latency_ms"]["max"] >= 1900, r["latency_ms"])
    check(r["share_within_target"] < 0.75, r["share_within_target"])
    same(report["verdict"], "missed", "verdict")
    # The stall stands in the timeline where it was.
    check(max(b["p99_ms"] or 0 for b in r["timeline"]) > 1700, r["timeline"])
    with Stub(StallOnce()) as stub:
        latencies = closed_loop(stub.port, 100, 500)
    # The same stall, seen by one request of five hundred.
    p99 = latencies[495 - 1]
    check(max(latencies) > 1700, f"the closed loop saw no stall at all: {max(latencies)} ms")
    check(p99 < r["latency_ms"]["p99"] / 2, f"the closed loop's p99 shows the stall: {p99} ms: this test compares nothing")


def test_waiting_for_a_connection_counts():
    """One connection, answers after 100 ms, 20 requests/s: the line grows, and so do latencies; nothing is put off silently."""
    def slow(stub, sock, request):
        time.sleep(0.1)
        well(sock)
    with Stub(slow) as stub:
        report = run(stub, "--rate", "20", "--arrivals", "constant", "--duration", "2s", "--warmup", "0", "--connections", "1", code=1)
        same(stub.connections, 2, "connections (one of the first request)")
    r = report["run"]
    same(r["requests"]["ok"], 40, "answered")
    check(r["requests"]["waited_for_a_connection"] >= 35, r["requests"])
    check(r["latency_ms"]["max"] >= 1900, r["latency_ms"]) # the last is due at 1.95 s, and 40 x 0.1 s have to pass
    check(r["send_lag_ms"]["max"] >= 1800, r["send_lag_ms"])
    check(r["generator"]["longest_line"] >= 15, r["generator"])
    check("waited for a free connection" in report["stdout"], report["stdout"])


def test_a_starved_load_generator_says_so():
    """Stopped for a second, it must not blame the server."""
    path = os.path.join(WORK, "starved.json")
    with Stub() as stub:
        p = subprocess.Popen(arguments_of(stub, ["--rate", "50", "--duration", "3s", "--warmup", "0", "--json", path]),
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while stub.requests < 30:
            time.sleep(0.01)
        p.send_signal(signal.SIGSTOP)
        time.sleep(1)
        p.send_signal(signal.SIGCONT)
        out, err = p.communicate(timeout=60)
    same(p.returncode, 3, err.decode())
    check("load generator too slow" in out.decode(), out.decode())
    with open(path, encoding="utf-8") as f:
        report = json.load(f)
    same(report["verdict"], "load_generator_too_slow", "verdict")
    check(report["run"]["generator"]["own_lag_ms"]["max"] > 900, report["run"]["generator"])


# ---- exit codes and messages ----

def test_exit_codes():
    def late(stub, sock, request):
        time.sleep(0.05)
        well(sock)
    short = ("--duration", "1s", "--warmup", "0", "--rate", "20")
    with Stub() as stub:
        same(run(stub, *short, *GENEROUS, code=0)["verdict"], "met", "verdict")
    with Stub(late) as stub:
        same(run(stub, *short, "--target-ms", "20", "--max-lag-ms", "5000", code=1)["verdict"], "missed", "verdict")
        check("/no/such/dir/x.html" in run(stub, *short, "--html", "/no/such/dir/x.html", code=3)["stderr"], "before the run")

    def usage(message, *arguments):
        out = subprocess.run([ARGS.load, *arguments], capture_output=True)
        text = out.stderr.decode()
        same(out.returncode, 2, text)
        check(message in text and text.count("\n") == 1 and text.startswith("winnow-load: "), text)
    usage("--ads DIR is required")
    usage('--rate: found "0", expected a number from 0.01', "--ads", SAMPLES, "--rate", "0")
    usage("unknown option --no-such", "--no-such=1")
    usage("https is not supported", "--ads", SAMPLES, "--url", "https://127.0.0.1")
    usage("--duration: value missing", "--ads", SAMPLES, "--duration")

    def cannot_run(message, *arguments):
        out = subprocess.run([ARGS.load, "--ads", SAMPLES, *arguments], capture_output=True)
        text = out.stderr.decode()
        same(out.returncode, 3, text)
        check(message in text and text.count("\n") == 1, text)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        cannot_run(f"cannot connect to 127.0.0.1 port {port}: Connection refused", "--url", f"127.0.0.1:{port}")
    cannot_run("cannot find the host", "--url", "http://no-such-host.invalid")
    cannot_run("no metadata.jsonl in it", "--ads", "/tmp")
    with Stub(lambda stub, sock, request: sock.sendall(answer(401, b'{"detail":"a key is needed"}'))) as stub:
        cannot_run("a first request ended with 401: a key is needed", "--url", f"127.0.0.1:{stub.port}")
        same(stub.requests, 1, "requests")
    with Stub(lambda stub, sock, request: sock.sendall(b"SSH-2.0-x\r\n")) as stub:
        cannot_run('bad_answer: found "SSH-2.0-x"', "--url", f"127.0.0.1:{stub.port}")
    out = subprocess.run([ARGS.load, "--help"], capture_output=True, check=True).stdout.decode()
    check("Examples:" in out and "--find-max" in out, out)


def test_interrupt_reports_what_was_measured():
    path = os.path.join(WORK, "interrupted.json")
    with Stub() as stub:
        p = subprocess.Popen(arguments_of(stub, ["--rate", "50", "--duration", "10m", *GENEROUS, "--json", path]),
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while stub.requests < 100:
            time.sleep(0.02)
        p.send_signal(signal.SIGINT)
        out, _ = p.communicate(timeout=30)
    same(p.returncode, 130, "exit code")
    check("interrupted" in out.decode() and "requests " in out.decode(), out.decode())
    with open(path, encoding="utf-8") as f:
        report = json.load(f)
    check(report["interrupted"] and 0.1 < report["run"]["measured_s"] < 60, report["run"]["measured_s"])
    check(report["run"]["requests"]["ok"] > 10, report["run"]["requests"])


def test_interrupt_counts_what_was_late_already():
    """All answers hang: what had waited longer than the target when it was stopped has missed it."""
    def hang(stub, sock, request):
        if request.number:
            time.sleep(60)
        well(sock)
    path = os.path.join(WORK, "interrupted.json")
    with Stub(hang) as stub:
        p = subprocess.Popen(arguments_of(stub, ["--rate", "50", "--duration", "10m", "--warmup", "0", "--timeout", "1m", "--json", path]),
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while stub.requests < 60:
            time.sleep(0.02)
        p.send_signal(signal.SIGTERM)
        p.communicate(timeout=30)
    same(p.returncode, 130, "exit code")
    with open(path, encoding="utf-8") as f:
        report = json.load(f)
    check(counts(report).get("unfinished", 0) > 30, counts(report))
    same(report["run"]["requests"]["ok"], 0, "answered")
    same(report["run"]["share_within_target"], 0.0, "share")


# ---- servers that misbehave ----

def test_every_kind_of_answer_is_counted_under_its_name():
    ok = b"HTTP/1.1 200 OK\r\n"
    kinds = [
        ("200", lambda s: s.sendall(ok + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")),
        ("200", lambda s: s.sendall(ok + b"\r\nuntil close") or False),
        ("200", lambda s: s.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab") or False),
        ("429", lambda s: s.sendall(answer(429, b'{"detail":"the queue is full"}'))),
        ("503", lambda s: s.sendall(answer(503, b"", ["Connection: close"])) or False),
        ("302", lambda s: s.sendall(answer(302))),
        ("closed_without_answer", lambda s: False),
        ("connection_reset", lambda s: reset(s) or False),
        ("answer_cut", lambda s: s.sendall(ok + b"Content-Length: 100\r\n\r\nhalf") or False),
        ("answer_cut", lambda s: s.sendall(ok + b"Content-Le") or False),
        ("bad_answer", lambda s: s.sendall(b"garbage\r\n\r\n")),
        ("bad_answer", lambda s: s.sendall(ok + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n")),
        ("bad_answer", lambda s: s.sendall(ok + b"A: " + b"b" * 100000)),
        ("timeout_answer", lambda s: time.sleep(5)),
        ("timeout_answer", lambda s: drip(s)),
    ]

    def drip(sock):
        for byte in ok + b"Content-Length: 100\r\n\r\n" + b"x" * 100:
            sock.sendall(bytes([byte]))
            time.sleep(0.05)

    def behave(stub, sock, request):
        if request.number == 0:
            return well(sock)
        return kinds[(request.number - 1) % len(kinds)][1](sock)
    with Stub(behave) as stub:
        report = run(stub, "--rate", "30", "--arrivals", "constant", "--duration", "3s", "--warmup", "0", "--timeout", "1500ms", code=1)
    expected = {}
    for name, _ in kinds:
        expected[name] = expected.get(name, 0) + 6 # 90 requests, each kind six times
    same(counts(report), expected, "outcomes")
    same(report["run"]["requests"]["ok"], 18, "ok")
    rows = {row["outcome"]: row for row in report["run"]["outcomes"]}
    check(1500 <= rows["timeout_answer"]["latency_ms"]["p50"] < 3000, "a timeout has its time")
    same(rows["429"]["first"], "the queue is full", "what a 429 said")
    same(report["run"]["every_request_ms"]["p99"], None, "p99 over every request is a failure")
    for name in expected:
        check(name in report["stdout"], f"{name} is not in the summary")


def test_answer_before_the_request_is_out():
    """A server that refuses by the headers and closes: its answer counts, whatever becomes of the bytes still on their way."""
    big = os.path.join(WORK, "big")
    os.makedirs(big, exist_ok=True)
    with open(os.path.join(big, "a.png"), "wb") as f:
        f.write(b"\x89PNG\r\n\x1a\n" + os.urandom(20 << 20))
    with open(os.path.join(big, "metadata.jsonl"), "w", encoding="utf-8") as f:
        f.write('{"file_name": "a.png"}\n')
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            if sock.recv(4096):
                sock.sendall(answer(413, b'{"detail":"too large"}', ["Connection: close"]))
                sock.shutdown(socket.SHUT_WR)
                time.sleep(0.3) # let it be read before the reset that unread bytes cause
            sock.close()
    threading.Thread(target=serve, daemon=True).start()
    out = subprocess.run([ARGS.load, "--url", f"127.0.0.1:{listener.getsockname()[1]}", "--ads", big, "--timeout", "5s"], capture_output=True)
    listener.close()
    same(out.returncode, 3, out.stderr.decode())
    check("ended with 413: too large" in out.stderr.decode(), out.stderr.decode())


def test_a_server_that_goes_away_is_refused_connections():
    def last(stub, sock, request):
        if request.number >= 20:
            stub.close()
            for other in stub.sockets:
                if other is not sock:
                    reset(other)
            reset(sock)
            return False
        well(sock)
    with Stub(last) as stub:
        report = run(stub, "--rate", "40", "--arrivals", "constant", "--duration", "2s", "--warmup", "0", code=1)
    c = counts(report)
    check(c.get("connect_refused", 0) + c.get("connection_reset", 0) >= 40, c)
    check(c.get("connect_refused", 0) >= 20, c)


def test_connections_are_kept_and_reopened():
    with Stub() as stub:
        report = run(stub, "--rate", "50", "--duration", "2s", "--warmup", "0", *GENEROUS)
        check(report["run"]["generator"]["connections_made"] <= 20, report["run"]["generator"])
        same(stub.connections, report["run"]["generator"]["connections_made"] + 1, "connections")
    with Stub(lambda stub, sock, request: sock.sendall(answer(headers=["Connection: close"])) or False) as stub:
        report = run(stub, "--rate", "50", "--duration", "1s", "--warmup", "0", *GENEROUS)
        same(report["run"]["generator"]["connections_made"], report["run"]["requests"]["scheduled"], "connections made")
        same(report["run"]["requests"]["failed"], 0, "failed")


# ---- what is sent, and what is told ----

def test_requests_are_the_ads_and_carry_what_was_asked():
    with open(os.path.join(SAMPLES, "metadata.jsonl"), encoding="utf-8") as f:
        ads = [json.loads(line) for line in f]
    keys = {"WINNOW_INFERENCE_KEY": "inference-key-0001", "WINNOW_ADMIN_KEY": "admin-key-00000002"}
    html = os.path.join(WORK, "keys.html")
    with Stub() as stub:
        report = run(stub, "--rate", "100", "--duration", "1s", "--warmup", "0", "--deadline-ms", "777", "--header", "X-Mine: yes", "--limit",
                     "20", "--swap-every", "300ms", "--html", html, *GENEROUS, env=keys)
        audits = [r for r in stub.received if r.path == "/v1/audit"]
        swaps = [r for r in stub.received if r.path != "/v1/audit"]
        port = stub.port
    same({(r.headers["host"], r.headers["x-mine"], r.headers["x-deadline-ms"], r.headers["authorization"]) for r in audits},
         {(f"127.0.0.1:{port}", "yes", "777", "Bearer inference-key-0001")}, "headers")
    same({r.headers["authorization"] for r in swaps}, {"Bearer admin-key-00000002"}, "keys of swaps")
    for r in audits[:25]:
        boundary = re.search(r"boundary=(\S+)", r.headers["content-type"]).group(1).encode()
        fields = {}
        for part in r.body.split(b"--" + boundary)[1:-1]:
            head, value = part.strip(b"\r\n").split(b"\r\n\r\n", 1) if b"\r\n\r\n" in part.strip(b"\r\n") else (part.strip(b"\r\n"), b"")
            fields[re.search(rb'name="(\w+)"', head).group(1).decode()] = (head, part.split(b"\r\n\r\n", 1)[1][:-2])
        name = re.search(rb'filename="([^"]*)"', fields["image"][0]).group(1).decode()
        ad = next(x for x in ads if x["file_name"] == name)
        with open(os.path.join(SAMPLES, name), "rb") as f:
            check(fields["image"][1] == f.read(), f"{name}: the image differs")
        same(fields["text"][1].decode(), ad["text"], "text")
        same(fields["assist"][1].decode() if "assist" in fields else "", ad.get("assist", ""), "assist")
    # in turn: every ad before any comes again (the first request and the run begin at the same one)
    names = [re.search(rb'filename="([^"]*)"', r.body).group(1) for r in sorted(audits[1:], key=lambda r: r.number)]
    check(len(names) > 40 and len(set(names[:20])) >= 19, names[:20])
    with open(html, encoding="utf-8") as f:
        told = f.read() + json.dumps(report)
    for key in keys.values():
        check(key not in told, "a key was told")


def test_labels_are_compared():
    with open(os.path.join(SAMPLES, "metadata.jsonl"), encoding="utf-8") as f:
        labels = {x["file_name"]: x["label"] for x in map(json.loads, f)}

    def honest_mostly(stub, sock, request):
        label = labels[re.search(rb'filename="([^"]*)"', request.body).group(1).decode()]
        wrong = {0: {"label": "nonsense"}, 1: {"no": "label"}}.get(request.number % 10)
        sock.sendall(answer(body=json.dumps(wrong or {"label": label}).encode()))
    with Stub(honest_mostly) as stub:
        report = run(stub, "--rate", "100", "--arrivals", "constant", "--duration", "1s", "--warmup", "0", "--expect", "labels", *GENEROUS)
    same(report["run"]["labels"], {"right": 80, "wrong": 20}, "labels")
    check("80 of 100 answers equal the ad's label (80.0 %)" in report["stdout"], report["stdout"])


def test_swaps_take_turns_and_refusals_are_told():
    seen = []

    def behave(stub, sock, request):
        if request.path == "/v1/audit":
            return well(sock)
        seen.append((request.path, request.body.decode()))
        if len(seen) % 2 == 0:
            return sock.sendall(answer(404, b'{"error":"no such model"}'))
        time.sleep(0.3)
        sock.sendall(answer())
    html = os.path.join(WORK, "swaps.html")
    with Stub(behave) as stub:
        report = run(stub, "--rate", "50", "--duration", "3s", "--warmup", "0", "--swap-every", "500ms", "--swap-path", "/v2/repository/models/m/load",
                     "--swap-body", '{"v":1}', "--swap-body", '{"v":2}', "--html", html, *GENEROUS, code=1)
    swaps = report["run"]["swaps"]
    same([s["outcome"] for s in swaps["list"]], ["200", "404"] * 2 + ["200"], "outcomes")
    same([b for _, b in seen], ['{"v":1}', '{"v":2}'] * 2 + ['{"v":1}'], "bodies")
    same({p for p, _ in seen}, {"/v2/repository/models/m/load"}, "path")
    check(swaps["list"][0]["took_ms"] >= 300, swaps["list"][0])
    same(swaps["list"][1]["detail"], "no such model", "detail")
    during, between = swaps["latency_during_ms"]["count"], swaps["latency_between_ms"]["count"]
    check(during > 20 and between > 20 and during + between == report["run"]["requests"]["ok"], (during, between))
    check("2 of 5 swaps were refused or failed" in report["stdout"], report["stdout"])
    check("404 no such model" in report["stdout"], report["stdout"])
    same(({s["changed"] for s in swaps["list"]}, swaps["changed"]), ({None}, 0), "what is not known")
    check("3 of 5 succeeded, what they changed is not known" in report["stdout"], report["stdout"])


def test_swaps_that_change_nothing_are_told():
    """A server with versions 1 and 2 of a model; 2 answers at first, and whatever names no version leads back to it."""
    now = ["2"]

    def behave(stub, sock, request):
        if request.path == "/v1/audit":
            return sock.sendall(answer(body=json.dumps({"label": "x", "model": {"name": "m", "version": now[0]}}).encode()))
        now[0] = json.loads(request.body).get("parameters", {}).get("version", "2")
        sock.sendall(answer(body=json.dumps({"name": "m", "version": now[0], "state": "READY"}).encode()))

    def swapped(*bodies):
        now[0] = "2"
        with Stub(behave) as stub:
            return run(stub, "--rate", "50", "--arrivals", "constant", "--duration", "1s", "--warmup", "0", "--swap-every", "300ms", "--html",
                       os.path.join(WORK, "swaps.html"), *[x for b in bodies for x in ("--swap-body", b)], *GENEROUS)
    report = swapped()
    same([(s["model"], s["changed"]) for s in report["run"]["swaps"]["list"]], [("m/2", False)] * 3, "back to the policy, again and again")
    check("3 of 3 succeeded, no change of the version that answers" in report["stdout"], report["stdout"])
    check("no swap changed the version that answers" in report["stdout"], report["stdout"])
    with open(os.path.join(WORK, "swaps.html"), encoding="utf-8") as f:
        check("m/2 (no change)" in f.read(), "the page")
    report = swapped('{"parameters":{"version":"2"}}', '{"parameters":{"version":"1"}}')
    same([(s["model"], s["changed"]) for s in report["run"]["swaps"]["list"]], [("m/2", False), ("m/1", True), ("m/2", True)], "taking turns")
    same(report["run"]["swaps"]["changed"], 2, "changed")
    check("3 of 3 succeeded, 2 changed the version that answers, the longest" in report["stdout"], report["stdout"])
    check("no swap changed" not in report["stdout"], report["stdout"])


def test_same_seed_same_requests():
    times = []
    for seed in ("5", "5", "6"):
        with Stub() as stub:
            report = run(stub, "--rate", "60", "--duration", "1s", "--warmup", "0", "--seed", seed, *GENEROUS)
            times.append((report["run"]["requests"]["scheduled"], [b["scheduled"] for b in report["run"]["timeline"]]))
    same(times[0], times[1], "the same seed")
    check(times[0] != times[2], "another seed gives the same arrivals")


def test_pages_are_whole_and_bodies_can_be_json():
    html = os.path.join(WORK, "page.html")

    def hostile(stub, sock, request):
        if request.number % 5 == 4:
            return sock.sendall(answer(500, b'{"detail":"<script>alert(1)</script>\\u001b[2J"}'))
        well(sock)
    with Stub(hostile) as stub:
        report = run(stub, "--rate", "50", "--duration", "2s", "--format", "json", "--html", html, code=1)
        body = json.loads(stub.received[0].body)
        same(sorted(body)[-2:], ["image", "text"] if "assist" not in body else ["image", "text"], "members")
        same(stub.received[0].headers["content-type"], "application/json", "Content-Type")
    with open(html, encoding="utf-8") as f:
        page = f.read()
    root = xml.etree.ElementTree.fromstring(page.replace("<!DOCTYPE html>", "", 1))
    check(root.tag == "html" and "<script" not in page and "http://www" not in page, "not self-contained")
    check(len(root.findall(".//svg")) >= 3, "plots are missing")
    text = "".join(root.itertext())
    for expected in ("missed", "p99", "alert(1)", "How it was measured"):
        check(expected in text, f"{expected} is not in the page")
    check("\x1b" not in report["stdout"] and "\x1b" not in page, "an escape sequence came through")


def test_progress_lines():
    """On a terminal the line is rewritten every second."""
    import pty
    with Stub() as stub:
        leader, follower = pty.openpty()
        p = subprocess.Popen(arguments_of(stub, ["--rate", "40", "--duration", "2500ms", "--warmup", "0", *GENEROUS]), stdout=subprocess.PIPE,
                             stderr=follower)
        os.close(follower)
        seen = b""
        while True:
            try:
                piece = os.read(leader, 4096)
            except OSError:
                break
            if not piece:
                break
            seen += piece
        p.communicate(timeout=30)
        os.close(leader)
        lines = re.findall(rb"\r *\d+ s  asked ([\d.]+)/s  answered ([\d.]+)/s  failed (\d+)  p50 [\d.]+  p99 [\d.]+  max [\d.]+ ms", seen)
        check(len(lines) >= 2, seen)
        out = subprocess.run(arguments_of(stub, ["--rate", "40", "--duration", "1s", "--quiet", *GENEROUS]), capture_output=True, check=True)
        same(out.stderr, b"", "stderr with --quiet")
        out = subprocess.run(arguments_of(stub, ["--rate", "40", "--duration", "1s", "--quiet", "--json", "-", *GENEROUS]), capture_output=True)
        same(json.loads(out.stdout)["verdict"], "met", "JSON on stdout")


# ---- addresses ----

def test_ipv6_and_names():
    short = ("--rate", "20", "--duration", "1s", "--warmup", "0", *GENEROUS)
    with Stub() as stub:
        report = run(f"http://localhost:{stub.port}", *short)
        check(report["connected_to"].endswith(f"port {stub.port}"), report["connected_to"])
    try:
        stub = Stub(family=socket.AF_INET6, address="::1")
    except OSError:
        print("        (no IPv6 here)")
        return
    with stub:
        report = run(f"http://[::1]:{stub.port}/v1/audit", *short)
        same(report["connected_to"], f"::1 port {stub.port}", "connected_to")
        same(stub.received[0].headers["host"], f"[::1]:{stub.port}", "Host")


# ---- search ----

def test_find_max_of_a_server_with_one_desk():
    """One request at a time, 25 ms each: it cannot hold 40/s, and holds a few per second with ease."""
    desk = threading.Lock()

    def one_at_a_time(stub, sock, request):
        with desk:
            time.sleep(0.025)
        well(sock)
    html = os.path.join(WORK, "max.html")
    with Stub(one_at_a_time) as stub:
        report = run(stub, "--find-max", "--rate", "8", "--max-rate", "200", "--duration", "1500ms", "--warmup", "200ms", "--resolution", "40",
                     "--confirm", "2", "--target-ms", "300", "--percentile", "90", "--arrivals", "constant", "--timeout", "3s", "--max-lag-ms", "5000", "--html", html)
    f = report["find_max"]
    same(f["end"], "found", "end")
    check(4 <= f["max_rate"] <= 52, f["max_rate"]) # 90 % within 300 ms: a short run may end before the line has grown
    check(f["lowest_missed_rate"] <= f["max_rate"] * 1.41, f)
    check(f["confirmed"] >= 2, f)
    check(any(t["ended_early"] for t in f["trials"]), "no hopeless trial was ended early")
    same(report["run"]["rate"], f["max_rate"], "the run that is told in full")
    check("requests/s is the highest rate found" in report["stdout"], report["stdout"])
    with open(html, encoding="utf-8") as page:
        xml.etree.ElementTree.fromstring(page.read().replace("<!DOCTYPE html>", "", 1))


def test_find_max_where_nothing_meets_it():
    def refuse(stub, sock, request):
        sock.sendall(answer(200 if request.number == 0 else 503))
    with Stub(refuse) as stub:
        report = run(stub, "--find-max", "--rate", "20", "--duration", "1s", "--warmup", "0", "--max-lag-ms", "5000", code=1)
    same(report["find_max"]["end"], "nothing_met", "end")
    same(report["run"], None, "run")
    check("no rate met p99 within 90 ms" in report["stdout"], report["stdout"])


# ---- the real server ----

class Serve:
    def __init__(self, *settings):
        self.log = os.path.join(WORK, "serve.log")
        command = [ARGS.serve, "--registry", os.path.abspath(REGISTRY), "--listen", "127.0.0.1:0"]
        for s in settings:
            command += ["--set", s]
        with open(self.log, "wb") as err:
            self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=err)
        self.port, end = None, time.monotonic() + 120
        while self.port is None:
            with open(self.log, encoding="utf-8") as f:
                text = f.read()
            found = re.search(r"listening on \S+ port (\d+)", text)
            self.port = int(found.group(1)) if found else None
            check(self.process.poll() is None and time.monotonic() < end, "the server did not start: " + text)
            time.sleep(0.02)

    def __enter__(self):
        return self

    def __exit__(self, *rest):
        self.process.terminate()
        same(self.process.wait(timeout=60), 0, "exit code of winnow-serve")


def test_the_bundled_model():
    if not ARGS.serve:
        print("        (no winnow-serve given)")
        return
    with Serve("inference.deadline=50s", "inference.max_deadline=60s") as server:
        for kind in ("multipart", "json"):
            report = run(server, "--rate", "4", "--duration", "4s", "--warmup", "0", "--timeout", "60s", "--expect", "labels", "--swap-every", "1500ms",
                         "--format", kind, *GENEROUS)
            r = report["run"]
            same(r["requests"]["failed"], 0, f"{kind}: failed\n" + report["stdout"])
            check(r["requests"]["ok"] >= 5, r["requests"])
            check(r["labels"]["right"] >= 0.7 * r["requests"]["ok"], r["labels"])
            check(len(r["swaps"]["list"]) >= 1, r["swaps"])
            check(all(re.fullmatch(r"\d{3}", s["outcome"]) for s in r["swaps"]["list"]), r["swaps"])
        # deadlines that cannot be met are failures with the server's own words
        report = run(server, "--rate", "10", "--duration", "1s", "--warmup", "0", "--deadline-ms", "1", code=1)
        same(set(counts(report)), {"504"}, "outcomes")


def main():
    global ARGS, WORK
    p = argparse.ArgumentParser()
    p.add_argument("--load", required=True)
    p.add_argument("--serve", default="")
    p.add_argument("--only", default="")
    ARGS = p.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory(prefix="winnow-load-") as work:
        WORK = work
        for name, test in list(globals().items()):
            if not name.startswith("test_") or ARGS.only not in name:
                continue
            start = time.monotonic()
            try:
                test()
                print(f"ok      {name} ({time.monotonic() - start:.1f} s)", flush=True)
            except Exception:
                failed += 1
                print(f"FAILED  {name}", flush=True)
                traceback.print_exc(file=sys.stdout)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
