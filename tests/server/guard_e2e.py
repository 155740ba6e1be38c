#!/usr/bin/env python3
"""Who may do what, how often, over which listener; what happens when connections run out; TLS, reload, the result cache, the
metrics' text. Standard library and the openssl program only, over real HTTP.

  guard_e2e.py --serve PATH/winnow-serve --prune PATH/winnow-prune [--promtool PATH] [--only NAME]
"""
import concurrent.futures
import http.client
import itertools
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import warnings

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import make_tiny_model  # noqa: E402
import promtext  # noqa: E402
from fault_e2e import children  # noqa: E402
from server_process import (FILES, GENEROUS, HERE, RUN, TroubledServer, audit_bytes, check, check_promtool, good_image,  # noqa: E402
                            log, multipart, read_file, run_failing, run_tests, same, wait_for)


KEYS = {"inference": "inference-key-0001", "metrics": "metrics-key-00002", "admin": "admin-key-0000003"}

ENVIRONMENT = {f"WINNOW_{k.upper()}_KEY": v for k, v in KEYS.items()}


# ---- who may do what ----


# Every route of routes.h: method, path, whose key it asks for (None: nobody's), and what its own answer is.
ROUTES = {
    "ROUTE_NONE": ("GET", "/nowhere", None, 404),
    "ROUTE_AUDIT": ("POST", "/v1/audit", "inference", 200),
    "ROUTE_SERVER": ("GET", "/v2", None, 200),
    "ROUTE_LIVE": ("GET", "/v2/health/live", None, 200),
    "ROUTE_READY": ("GET", "/v2/health/ready", None, 200),
    "ROUTE_MODEL": ("GET", "/v2/models/tiny", "inference", 200),
    "ROUTE_MODEL_READY": ("GET", "/v2/models/tiny/ready", "inference", 200),
    "ROUTE_METRICS": ("GET", "/metrics", "metrics", 200),
    "ROUTE_INDEX": ("POST", "/v2/repository/index", "admin", 200),
    "ROUTE_LOAD": ("POST", "/v2/repository/models/absent/load", "admin", 404),
    "ROUTE_UNLOAD": ("POST", "/v2/repository/models/absent/unload", "admin", 404),
}


def known_routes():
    with open(os.path.join(HERE, "..", "..", "server", "routes.h"), encoding="utf-8") as f:
        return set(re.findall(r"^\t(ROUTE_[A-Z_]+),", f.read(), re.M))


def expected_status(role, own, key, on_this_listener):
    if not on_this_listener:
        return 404
    if role is None or key == role:
        return own
    return 403 if key in KEYS else 401


def try_matrix(server, port, serves):
    wrong = []
    for (name, (method, path, role, own)), key in itertools.product(ROUTES.items(), [None, "unknown", *KEYS]):
        presented = KEYS.get(key, "no-such-key-00000" if key else None)
        if name == "ROUTE_AUDIT":
            status, headers, body = server.ask_audit(key=presented, port=port)
        else:
            status, headers, body = server.ask(method, path, presented, port, b"" if method == "POST" else None)
        expected = expected_status(role, own, key, serves(role))
        if status != expected:
            wrong.append(f"{method} {path} with key {key}: {status}, expected {expected}: {body[:200]}")
        if status == 401:
            check(headers["www-authenticate"].startswith("Bearer"), headers)
    check(not wrong, "\n".join(wrong))


def test_every_endpoint_with_every_key():
    same(set(ROUTES), known_routes(), "routes in this table")
    with TroubledServer(*GENEROUS, env=ENVIRONMENT) as server:
        try_matrix(server, server.port, lambda role: True)
        text = server.errors() + json.dumps(server.access_log())
        for key in [*KEYS.values(), "no-such-key"]:
            check(key not in text, "a key was logged")
    with TroubledServer(*GENEROUS, "admin.address=127.0.0.1", "admin.port=0", env=ENVIRONMENT) as server:
        try_matrix(server, server.port, lambda role: role in (None, "inference"))
        try_matrix(server, server.admin_port, lambda role: role != "inference")


def test_without_keys_only_this_machine_may_do_everything():
    with TroubledServer(*GENEROUS) as server:
        for name, (method, path, role, own) in ROUTES.items():
            if name != "ROUTE_AUDIT":
                same(server.ask(method, path, body=b"" if method == "POST" else None)[0], own, path)
        same(server.ask_audit()[0], 200, "audit")
        status, _, body = server.ask("POST", "/v2/repository/index", body=b"", headers={"Origin": "http://evil.example"})
        same((status, json.loads(body)["reason"]), (403, "forbidden"), "from a web page")
    # An address that others can reach too: the same loopback client may no longer administrate without a key.
    with TroubledServer(*GENEROUS, env={"WINNOW_INFERENCE_KEY": KEYS["inference"]}, extra=("--listen", "0.0.0.0:0")) as server:
        same(server.ask_audit()[0], 401, "audit")
        same(server.ask("GET", "/metrics")[0], 200, "metrics")
        same(server.ask("POST", "/v2/repository/index", body=b"")[0], 403, "index")


def test_start_refusals():
    registry = os.path.join(RUN.work, "registry")

    def refused(code, message, *settings, env=None, listen="127.0.0.1:0"):
        arguments = ["--registry", registry, "--listen", listen] + [x for s in (*settings, "model.name=tiny") for x in ("--set", s)]
        got, text = run_failing(*arguments, env=env)
        same((got, text.count("\n")), (code, 1), text)
        check(message in text, text)
        same(run_failing(*arguments, "--check-config", env=env), (code, text), "--check-config")
    refused(2, "admin.address: 0.0.0.0 can be reached from outside, expected an admin key", "admin.address=0.0.0.0", "admin.port=0")
    refused(2, 'admin.address: found "example.org"', "admin.address=example.org")
    refused(2, "tls.certificate and tls.key: found one of them", "tls.certificate=x")
    refused(2, "keys.inference and keys.admin have a key in common", "keys.inference=0123456789abcdef", "keys.admin=0123456789abcdef")
    path = write_file("bad.keys", "a name and a key\n")
    refused(2, f"{path}:1: found more than two words", "keys.admin_file=" + path)
    refused(2, "keys.inference: found a key of 5 characters", "keys.inference=short")
    refused(2, "/no-such.keys: ", "keys.inference_file=/no-such.keys")
    refused(2, "log.access: cannot append to /no-such-directory/a: No such file", "log.access=/no-such-directory/a")
    refused(2, f"log.access: cannot append to {RUN.work}: Is a directory", "log.access=" + RUN.work)
    for address in ("127.0.0.1", "0.0.0.0", "::"):
        refused(2, "admin.port: found 8099, which listen.port is too", "admin.address=" + address, "admin.port=8099", env=ENVIRONMENT,
                listen="127.0.0.1:8099")
    refused(2, "canary.start: other/2:10: this model is not served", "canary.start=[other/2:10]")
    same(os.path.exists(os.path.join(RUN.work, "unmade.log")), False, "a log before it is asked for")
    arguments = ("--registry", registry, "--set", "model.name=tiny", "--set", "log.access=" + os.path.join(RUN.work, "unmade.log"))
    same(run_failing(*arguments, "--check-config"), (0, ""), "--check-config")
    same(os.path.exists(os.path.join(RUN.work, "unmade.log")), False, "a log that --check-config made")


def test_certificates_that_do_not_fit():
    if not shutil.which("openssl"):
        return log("     no openssl program: not tried")
    one, two = make_certificate("first"), make_certificate("second")
    arguments = ("--registry", os.path.join(RUN.work, "registry"), "--listen", "127.0.0.1:0", "--set", "model.name=tiny", "--set",
                 "tls.certificate=" + one[0], "--set", "tls.key=" + two[1])
    code, text = run_failing(*arguments)
    same((code, "tls." in text, text.count("\n")), (2, True, 1), text)
    same(run_failing(*arguments, "--check-config"), (2, text), "--check-config")


def test_keys_that_others_can_read_are_warned_of():
    path = write_file("open.keys", "alice alice-key-aaaaaaaaaa\n")
    os.chmod(path, 0o640)
    with TroubledServer(*GENEROUS, "keys.inference_file=" + path) as server:
        check("every user" not in server.errors(), server.errors())
        os.chmod(path, 0o644)
        server.reload(f"keys.inference_file: {path}: every user of this machine may read it (mode 0644)")
        server.reload("reloaded")
    same(server.errors().count("every user"), 2, "warnings")
    with TroubledServer(*GENEROUS, "keys.inference_file=" + path) as server:
        check("every user of this machine may read it" in server.errors(), server.errors())


def write_file(name, text):
    path = os.path.join(RUN.work, name)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    return path


def test_names_of_keys_and_reload():
    keys = write_file("inference.keys", "# who has which\nalice alice-key-aaaaaaaaaa\nbob-key-bbbbbbbbbbbb\n")
    config = write_file("reload.yaml", f"keys: {{inference_file: {keys}}}\nmodel: {{name: tiny}}\n")
    with TroubledServer(*GENEROUS, extra=("--config", config)) as server:
        def status(key, **kwargs):
            code, headers, _ = server.ask_audit(key=key, **kwargs)
            return code, headers["x-request-id"]
        code, request_id = status("alice-key-aaaaaaaaaa")
        same((code, server.logged(request_id)["key"]), (200, "alice"), "alice")
        code, request_id = status("bob-key-bbbbbbbbbbbb")
        same((code, server.logged(request_id)["key"]), (200, "key-2"), "a key without a name")
        code, request_id = status("carol-key-ccccccccc")
        same((code, "key" in server.logged(request_id)), (401, False), "an unknown key")
        # Another set of keys.
        write_file("inference.keys", "carol carol-key-ccccccccc\n")
        server.reload("reloaded")
        same([status(k)[0] for k in ("alice-key-aaaaaaaaaa", "carol-key-ccccccccc")], [401, 200], "after the reload")
        # Nothing changes when anything is wrong.
        write_file("inference.keys", "dave short\n")
        server.reload("nothing is reloaded: " + keys)
        write_file("inference.keys", "dave dave-key-dddddddddd\n")
        write_file("reload.yaml", f"keys: {{inference_file: {keys}}}\nmodel: {{name: tiny}}\nhttp: {{threads: 3}}\n")
        server.reload("nothing is reloaded: http.threads: found another value than at the start")
        write_file("reload.yaml", "kees: {}\n")
        server.reload("nothing is reloaded: " + config)
        same([status(k)[0] for k in ("dave-key-dddddddddd", "carol-key-ccccccccc")], [401, 200], "after refused reloads")
        # Deadlines and the log's level.
        write_file("reload.yaml", f"keys: {{inference_file: {keys}}}\nmodel: {{name: tiny}}\n")
        server.reload("reloaded")
        same(status("dave-key-dddddddddd")[0], 200, "dave")
        text = server.errors() + json.dumps(server.access_log())
        for key in ("alice-key", "bob-key", "carol-key", "dave-key"):
            check(key not in text, "a key was logged")


def test_log_level_and_rotation():
    path = os.path.join(RUN.work, "access.log")
    config = write_file("level.yaml", "log: {level: info}\n")
    with TroubledServer(*GENEROUS, "log.access=" + path, extra=("--config", config)) as server:
        server.ask("GET", "/v2/health/live")
        wait_for(lambda: read_file(path).count(b"\n") == 1, what="a line")
        os.rename(path, path + ".1")
        server.reload("reloaded")
        server.ask("GET", "/v2/health/live")
        wait_for(lambda: os.path.exists(path) and read_file(path).count(b"\n") == 1, what="a line in the new file")
        same(read_file(path + ".1").count(b"\n"), 1, "lines in the old one")
        write_file("level.yaml", "log: {level: error}\n")
        server.process.send_signal(signal.SIGHUP)
        time.sleep(0.3)
        lines = server.errors().count("\n")
        server.process.send_signal(signal.SIGHUP)  # its line is no longer written
        time.sleep(0.3)
        check(server.errors().count("\n") <= lines + 1, server.errors())
    check("drained" not in server.errors(), server.errors())


# ---- how often ----


def test_rate_limits():
    keys = write_file("rates.keys", "alice alice-key-aaaaaaaaaa\nbob bob-key-bbbbbbbbbbbb\n")
    with TroubledServer(*GENEROUS, "rates.inference=0.005", "rates.burst=3", "keys.inference_file=" + keys) as server:
        answers = [server.ask_audit(key="alice-key-aaaaaaaaaa") for _ in range(5)]
        same([a[0] for a in answers], [200, 200, 200, 429, 429], "alice")
        status, headers, body = answers[-1]
        same(json.loads(body)["reason"], "rate_limited", "reason")
        check(100 <= int(headers["retry-after"]) <= 200, headers)
        same(server.logged(headers["x-request-id"])["key"], "alice", "the log knows who")
        same([server.ask_audit(key="bob-key-bbbbbbbbbbbb")[0] for _ in range(4)], [200, 200, 200, 429], "bob")
        same([server.ask_audit(key="wrong-key-000000")[0] for _ in range(4)], [401] * 4, "a wrong key")
        same({server.ask("GET", "/v2/health/live")[0] for _ in range(20)}, {200}, "live")
        same(server.settled_metrics()['winnow_sheds_total{reason="rate_limited"}'], 3, "sheds")
    with TroubledServer(*GENEROUS, "rates.inference=0.005", "rates.metrics=0.005", "rates.burst=2") as server:
        same([server.ask_audit()[0] for _ in range(3)], [200, 200, 429], "without keys")
        same([server.ask("GET", "/metrics")[0] for _ in range(3)], [200, 200, 429], "metrics")


# ---- when connections run out ----


# Nobody leaves by itself: only making room lets the next one in.
FOREVER = ("http.idle_timeout=1h", "http.receive_timeout=1h")

# How those who hold connections begin: not at all, with headers that go on and on, with a body that does.
BEGINNINGS = (b"", b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nX-Long: ",
              b"POST /v1/audit HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n")


class Crowd(threading.Thread):
    """Clients that hold connections and never finish a request; whoever is closed comes back at once."""

    def __init__(self, port, count):
        super().__init__()
        self.address, self.returned, self.over = ("127.0.0.1", port), 0, threading.Event()
        self.begun = [(self.begin(b), b) for b in itertools.islice(itertools.cycle(BEGINNINGS), count)]

    def begin(self, beginning):
        s = socket.create_connection(self.address)
        s.setblocking(False)
        s.sendall(beginning)
        return s

    def drip(self, s, beginning):
        """False when the server has closed it."""
        try:
            if beginning:
                s.sendall(b"a")
            return s.recv(4096) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def run(self):
        while not self.over.wait(0.02):
            for i, (s, beginning) in enumerate(self.begun):
                if not self.drip(s, beginning):
                    s.close()
                    self.begun[i] = self.begin(beginning), beginning
                    self.returned += 1

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()
        for s, _ in self.begun:
            s.close()


def told(server):
    return server.errors().count("connections run out (http.max_connections: ")


def test_whoever_holds_connections_keeps_nobody_out():
    with TroubledServer(*GENEROUS, *FOREVER, "http.max_connections=8") as server, Crowd(server.port, 20) as crowd:
        wait_for(lambda: crowd.returned > 40, what="as many closed as there are, twice")
        for _ in range(8):
            same(server.ask("GET", "/v2/health/live")[0], 200, "live")
        for _ in range(2):
            same(server.ask_audit()[0], 200, "an audit")
        before = crowd.returned
        wait_for(lambda: crowd.returned > before + 20, what="it goes on")
        same(told(server), 1, "lines in the log")
        check(server.metrics()["winnow_connections_evicted_total"] > 40, "connections closed to make room")


def test_the_log_says_where_connections_run_out():
    with TroubledServer(*GENEROUS, *FOREVER, "admin.address=127.0.0.1", "admin.port=0") as server, Crowd(server.admin_port, 80) as crowd:
        wait_for(lambda: crowd.returned > 10, what="some are closed")
        same(server.ask("GET", "/v2/health/live", port=server.admin_port)[0], 200, "live")
        wait_for(lambda: "connections run out (on the admin listener: at most 64)" in server.errors(), what="a line in the log")
        same(told(server), 0, "lines about the other one")


def test_what_is_worked_on_is_not_cut_off():
    head, body = audit_bytes(good_image(), "x", ("Connection: close",))
    with TroubledServer(*GENEROUS, *FOREVER, "http.max_connections=48", "inference.queue_capacity=64", "decode.timeout=1h") as server:
        helpers = children(server.pid)
        if not helpers:
            return log("     images are decoded in a thread, which cannot be stopped: not tried")
        for pid in helpers:
            os.kill(pid, signal.SIGSTOP)
        audits = [server.connect() for _ in range(40)]
        for s in audits:
            s.sendall(head + body)
        with Crowd(server.port, 30) as crowd:
            wait_for(lambda: crowd.returned > 30, what="room made")
            for pid in helpers:
                os.kill(pid, signal.SIGCONT)
            for s in audits:
                answer = http.client.HTTPResponse(s)
                answer.begin()
                same(answer.status, 200, answer.read())
                s.close()


def test_who_leaves_amid_a_body_is_noticed():
    with TroubledServer(*GENEROUS, *FOREVER) as server:
        for _ in range(20):
            s = server.connect()
            s.sendall(BEGINNINGS[2] + b"some of it")
            s.close()  # its end is there before anybody has read the beginning
        def left():
            return sum(line["reason"] == "client_closed" for line in server.access_log())
        wait_for(lambda: left() == 20, what="clients that left")
        wait_for(lambda: server.metrics()["winnow_connections"] == 1, what="nobody but who asks for the metrics is connected")


def keep_asking(port, over):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    while not over.is_set():
        c.request("GET", "/v2/health/live")
        same(c.getresponse().read(), b'{"live":true}', "answer")


def test_busy_connections_take_turns():
    with TroubledServer(*GENEROUS, *FOREVER, "http.max_connections=16") as server, concurrent.futures.ThreadPoolExecutor(24) as pool:
        over = threading.Event()
        asking = [pool.submit(keep_asking, server.port, over) for _ in range(24)]
        try:
            for _ in range(10):
                same(server.ask("GET", "/v2/health/live")[0], 200, "live")
        finally:
            over.set()
        for a in asking:
            a.result()


def is_open(c):
    """It answers again over the same connection."""
    try:
        c.auto_open = 0
        c.request("GET", "/v2/health/live")
        return c.getresponse().read() == b'{"live":true}'
    except (OSError, http.client.HTTPException):
        return False


def test_idle_connections_are_kept_while_there_is_room():
    with TroubledServer(*GENEROUS, *FOREVER, "http.max_connections=32", "http.threads=3") as server:
        idle = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=60) for _ in range(30)]
        for c in idle:
            c.connect()
            check(is_open(c), "the first request")
        time.sleep(1)
        same([is_open(c) for c in idle[1:]], [True] * 29, "thirty are not too many")
        thirty = server.open_descriptors()
        dripping = server.connect()  # a body is worth more than an idle connection
        dripping.sendall(BEGINNINGS[2])
        idle[0].sock.settimeout(60)
        same(idle[0].sock.recv(1), b"", "whoever was silent for longest")
        # Until the server has seen that end, there are thirty-one, and an answer closes its connection.
        wait_for(lambda: server.open_descriptors() == thirty, what="thirty again")
        same([is_open(c) for c in idle[1:]], [True] * 29, "the others")
        time.sleep(0.5)
        one_more = [server.connect() for _ in range(29)]
        for c in idle[1:]:
            c.sock.settimeout(60)
            same(c.sock.recv(1), b"", "idle, now that more come")
        dripping.settimeout(0)
        try:
            check(False, f"the body was given up first: {dripping.recv(4096)}")
        except BlockingIOError:
            pass
        one_more += [server.connect() for _ in range(60)]
        dripping.settimeout(60)
        answer = b"".join(iter(lambda: dripping.recv(4096), b""))
        check(answer.startswith(b"HTTP/1.1 408") and b"others need the connection" in answer, answer)
        for s in one_more:
            s.close()


class FewFiles:
    """Servers start with so many open files allowed."""

    def __init__(self, ulimit):
        self.start, self.program = f'#!/bin/sh\nulimit {ulimit}\nexec {RUN.serve} "$@"\n', RUN.serve

    def __enter__(self):
        RUN.serve = write_file("few_files.sh", self.start)
        os.chmod(RUN.serve, 0o755)

    def __exit__(self, *_):
        RUN.serve = self.program


def test_connections_leave_open_files_for_the_rest():
    with FewFiles("-n 90"), TroubledServer(*GENEROUS, *FOREVER) as server:
        found = re.search(r"http\.max_connections: 256 connections need (\d+) open files with everything else, 90 are allowed "
                          r"\(ulimit -Hn, LimitNOFILE\): at most 45 connections are taken", server.errors())
        check(found and int(found.group(1)) > 256, server.errors())
        with Crowd(server.port, 60) as crowd:
            wait_for(lambda: crowd.returned > 60, what="room made")
            for pid in children(server.pid):  # decoding helpers, if there are any: they are started anew
                os.kill(pid, signal.SIGKILL)
            for _ in range(3):
                same(server.ask_audit()[0], 200, "an audit")
            server.reload("reloaded")  # opens files
            metrics = server.metrics()
            check(metrics["process_open_fds"] < 90 == metrics["process_max_fds"], metrics)
    with FewFiles("-Sn 64"), TroubledServer(*GENEROUS) as server:
        check("open files" not in server.errors(), server.errors())
        check(server.metrics()["process_max_fds"] > 256, "the limit is raised")


# ---- TLS ----


def make_certificate(name):
    paths = [os.path.join(RUN.work, name + end) for end in (".pem", ".key")]
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-out", paths[0], "-keyout", paths[1]],
                   check=True, capture_output=True)
    return paths


def test_tls():
    if not shutil.which("openssl"):
        return log("     no openssl program: not tried")
    one, two = make_certificate("one"), make_certificate("two")
    certificate, key = os.path.join(RUN.work, "server.pem"), os.path.join(RUN.work, "server.key")

    def install(pair):
        shutil.copy(pair[0], certificate)
        shutil.copy(pair[1], key)
    install(one)
    settings = ("tls.certificate=" + certificate, "tls.key=" + key, "admin.address=127.0.0.1", "admin.port=0", "tls.admin=false")
    try:
        server = TroubledServer(*GENEROUS, *settings)
    except AssertionError as e:
        if "without GnuTLS" in str(e) or "without TLS" in str(e):
            return log("     built without TLS: not tried")
        raise
    with server:
        trust = {name: ssl.create_default_context(cafile=pair[0]) for name, pair in (("one", one), ("two", two))}

        def shown():
            return {name for name, context in trust.items() if accepted(context)}

        def accepted(context):
            try:
                return server.ask("GET", "/v2/health/live", tls=context)[0] == 200
            except ssl.SSLCertVerificationError:
                return False
        same(shown(), {"one"}, "certificates that are good")
        for said in (f"port {server.port}, https", f"port {server.admin_port}, http,"):
            check(said in server.errors(), server.errors())
        status, _, body = server.ask_audit(tls=trust["one"])
        same(status, 200, body)
        big = multipart([("image", good_image()), ("text", "x" * 16000)])
        same(server.ask("POST", "/v1/audit", body=big[0], headers={"Content-Type": big[1]}, tls=trust["one"])[0], 200, "larger")
        same(server.ask("GET", "/metrics", port=server.admin_port)[0], 200, "the admin listener, in the clear")
        try:
            same(server.ask("GET", "/v2/health/live")[0], 400, "in the clear")
        except (OSError, http.client.HTTPException):
            pass
        install(two)
        server.reload("reloaded")
        same(shown(), {"two"}, "after the reload")
        shutil.copy(one[1], key)  # not the key of this certificate
        server.reload("nothing is reloaded: tls.key")
        write_file("server.pem", "no certificate\n")
        server.reload("nothing is reloaded: tls.certificate")
        same(shown(), {"two"}, "after a refused reload")
        old = ssl.create_default_context(cafile=two[0])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                old.maximum_version = ssl.TLSVersion.TLSv1_1
            server.ask("GET", "/v2/health/live", tls=old)
            check(False, "TLS 1.1 was spoken")
        except (ssl.SSLError, OSError, ValueError):
            pass


# ---- the result cache ----


def test_result_cache():
    with TroubledServer(*GENEROUS, "cache.bytes=64KiB") as server:
        def audit(text="x", **fields):
            body, kind = multipart([("image", good_image()), ("text", text), *fields.items()])
            status, headers, body = server.ask("POST", "/v1/audit", body=body, headers={"Content-Type": kind})
            same(status, 200, body)
            answer = json.loads(body)
            same(headers["x-request-id"], answer["request_id"], "X-Request-Id")
            return answer
        first, second = audit(), audit(data_id="again")
        check("cached" not in first and second["cached"] is True, second)
        check(first["request_id"] != second["request_id"] and second["data_id"] == "again", second)
        for k in ("labels", "label", "score", "suggestion", "model"):
            same(second[k], first[k], k)
        same((second["timing_ms"]["inference"], second["timing_ms"]["decode"]), (0, 0), "timing")
        check(second["timing_ms"]["total"] > 0, second)
        for other in (dict(text="y"), dict(assist="x"), dict(text="", assist="x")):
            check("cached" not in audit(**other), other)
            check(audit(**other)["cached"], other)
        line = server.logged(second["request_id"])
        same((line["cached"], line["status"]), (True, 200), "access log")
        m = server.settled_metrics()
        same((m["winnow_cache_hits_total"], m["winnow_cache_misses_total"], m["winnow_cache_entries"]), (4, 4, 4), "cache")
        same(m["winnow_batched_requests_total"], 4, "audits that were computed")
        check(0 < m["winnow_cache_bytes"] <= m["winnow_cache_max_bytes"] == 65536, m)
        same(sum(v for k, v in m.items() if k.startswith("winnow_decisions_total")), 8, "decisions")
        body, kind = multipart([("image", read_file(FILES, "good.png")[:100]), ("text", "x")])
        for _ in range(2):
            same(server.ask("POST", "/v1/audit", body=body, headers={"Content-Type": kind})[0], 422, "what fails is not kept")
    with TroubledServer(*GENEROUS) as server:
        check(all("cached" not in json.loads(server.ask_audit()[2]) for _ in range(2)), "off unless asked for")


# ---- metrics ----


def test_metrics_text_is_valid():
    with TroubledServer(*GENEROUS) as server:
        server.ask_audit()
        server.ask("POST", "/v1/audit", body=b"x", headers={"Content-Type": "text/plain"})
        server.settled_metrics()
        text = server.ask("GET", "/metrics")[2].decode()
        values = promtext.parse(text)
        for name in ("process_open_fds", "process_max_fds", "process_resident_memory_bytes", "process_virtual_memory_bytes",
                     "process_cpu_seconds_total", "process_start_time_seconds", "winnow_predicted_wait_seconds"):
            check(name in values, name)
        check(5 < values["process_open_fds"] < values["process_max_fds"], values["process_open_fds"])
        check('winnow_stage_duration_seconds_bucket{stage="inference",le="0.09"}' in values, "an edge at 90 ms")
        check_promtool(text.encode())
    # The checker can fail.
    for good, bad in (("_count 1", "_count 2"), ('le="0.09"', 'le="0.07"'), ("# TYPE winnow_ready gauge\n", ""),
                      ("\nwinnow_ready 1\n", "\nwinnow_ready 1\nwinnow_ready 1\n"),
                      ("\nwinnow_ready 1\n", "\nwinnow_ready one\n")):
        check(good in text, good)
        try:
            promtext.parse(text.replace(good, bad, 1))
        except ValueError:
            continue
        check(False, f"{bad} passed for valid")


def prepare():
    make_tiny_model.make(os.path.join(RUN.work, "registry", "tiny", "2"), 0)


if __name__ == "__main__":
    run_tests(globals(), prepare)
