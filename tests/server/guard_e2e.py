#!/usr/bin/env python3
"""Who may do what, how often, over which listener; TLS, reload, the result cache, the metrics' text; and what goes wrong
around the server. Standard library and the openssl program only, over real HTTP.

  guard_e2e.py --serve PATH/winnow-serve --prune PATH/winnow-prune [--promtool PATH] [--shims DIR] [--only NAME]
"""
import argparse
import http.client
import itertools
import json
import mmap
import os
import re
import shutil
import signal
import ssl
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import e2e  # noqa: E402
import make_tiny_model  # noqa: E402
import promtext  # noqa: E402
from e2e import GENEROUS, check, good_image, log, multipart, read_file, same, wait_for  # noqa: E402

KEYS = {"inference": "inference-key-0001", "metrics": "metrics-key-00002", "admin": "admin-key-0000003"}
ENVIRONMENT = {f"WINNOW_{k.upper()}_KEY": v for k, v in KEYS.items()}


class Guarded(e2e.Server):
    """A server that may log errors, with requests to either listener."""

    @property
    def admin_port(self):
        return int(re.search(r"administration on \S+ port (\d+)", self.errors()).group(1))

    def ask(self, method, path, key=None, port=None, body=None, headers=None, tls=None):
        port = port or self.port
        c = (http.client.HTTPSConnection("localhost", port, timeout=60, context=tls) if tls
             else http.client.HTTPConnection("127.0.0.1", port, timeout=60))
        try:
            c.request(method, path, body, {**({"X-Api-Key": key} if key else {}), **(headers or {})})
            r = c.getresponse()
            return r.status, dict((k.lower(), v) for k, v in r.getheaders()), r.read()
        finally:
            c.close()

    def ask_audit(self, text="x", key=None, **kwargs):
        body, kind = multipart([("image", good_image()), ("text", text)])
        return self.ask("POST", "/v1/audit", key, body=body, headers={"Content-Type": kind}, **kwargs)

    def reload(self, expected):
        """SIGHUP, and the line that says what came of it."""
        before = self.errors()
        self.process.send_signal(signal.SIGHUP)
        wait_for(lambda: expected in self.errors()[len(before):], what=expected)

    def stop(self, sig=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(sig)
        code = self.process.wait(timeout=60 * e2e.SLOW)
        errors = self.errors()
        same(code, 0, errors)
        for bad in ("Sanitizer", "runtime error"):
            check(bad not in errors, errors)
        return errors


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
    with open(os.path.join(e2e.HERE, "..", "..", "server", "routes.h"), encoding="utf-8") as f:
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
    with Guarded(*GENEROUS, env=ENVIRONMENT) as server:
        try_matrix(server, server.port, lambda role: True)
        text = server.errors() + json.dumps(server.access_log())
        for key in [*KEYS.values(), "no-such-key"]:
            check(key not in text, "a key was logged")
    with Guarded(*GENEROUS, "admin.address=127.0.0.1", "admin.port=0", env=ENVIRONMENT) as server:
        try_matrix(server, server.port, lambda role: role in (None, "inference"))
        try_matrix(server, server.admin_port, lambda role: role != "inference")


def test_without_keys_only_this_machine_may_do_everything():
    with Guarded(*GENEROUS) as server:
        for name, (method, path, role, own) in ROUTES.items():
            if name != "ROUTE_AUDIT":
                same(server.ask(method, path, body=b"" if method == "POST" else None)[0], own, path)
        same(server.ask_audit()[0], 200, "audit")
        status, _, body = server.ask("POST", "/v2/repository/index", body=b"", headers={"Origin": "http://evil.example"})
        same((status, json.loads(body)["reason"]), (403, "forbidden"), "from a web page")
    # An address that others can reach too: the same loopback client may no longer administrate without a key.
    with Guarded(*GENEROUS, env={"WINNOW_INFERENCE_KEY": KEYS["inference"]}, extra=("--listen", "0.0.0.0:0")) as server:
        same(server.ask_audit()[0], 401, "audit")
        same(server.ask("GET", "/metrics")[0], 200, "metrics")
        same(server.ask("POST", "/v2/repository/index", body=b"")[0], 403, "index")


def test_start_refusals():
    registry = os.path.join(e2e.WORK, "registry")

    def refused(code, message, *settings, env=None):
        arguments = [x for s in (*settings, "model.name=tiny") for x in ("--set", s)]
        got, text = e2e.run_failing("--registry", registry, "--listen", "127.0.0.1:0", *arguments, env=env)
        same((got, text.count("\n")), (code, 1), text)
        check(message in text, text)
    refused(1, "admin.address: 0.0.0.0 can be reached from outside, expected an admin key", "admin.address=0.0.0.0", "admin.port=0")
    refused(2, 'admin.address: found "example.org"', "admin.address=example.org")
    refused(2, "tls.certificate and tls.key: found one of them", "tls.certificate=x")
    refused(1, "keys.inference and keys.admin have a key in common", "keys.inference=0123456789abcdef", "keys.admin=0123456789abcdef")
    path = write_file("bad.keys", "a name and a key\n")
    refused(1, f"{path}:1: found more than two words", "keys.admin_file=" + path)


def write_file(name, text):
    path = os.path.join(e2e.WORK, name)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    return path


def test_names_of_keys_and_reload():
    keys = write_file("inference.keys", "# who has which\nalice alice-key-aaaaaaaaaa\nbob-key-bbbbbbbbbbbb\n")
    config = write_file("reload.yaml", f"keys: {{inference_file: {keys}}}\nmodel: {{name: tiny}}\n")
    with Guarded(*GENEROUS, extra=("--config", config)) as server:
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
    path = os.path.join(e2e.WORK, "access.log")
    config = write_file("level.yaml", "log: {level: info}\n")
    with Guarded(*GENEROUS, "log.access=" + path, extra=("--config", config)) as server:
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
    with Guarded(*GENEROUS, "rates.inference=0.005", "rates.burst=3", "keys.inference_file=" + keys) as server:
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
    with Guarded(*GENEROUS, "rates.inference=0.005", "rates.metrics=0.005", "rates.burst=2") as server:
        same([server.ask_audit()[0] for _ in range(3)], [200, 200, 429], "without keys")
        same([server.ask("GET", "/metrics")[0] for _ in range(3)], [200, 200, 429], "metrics")


# ---- TLS ----

def make_certificate(name):
    paths = [os.path.join(e2e.WORK, name + end) for end in (".pem", ".key")]
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-out", paths[0], "-keyout", paths[1]],
                   check=True, capture_output=True)
    return paths


def test_tls():
    if not shutil.which("openssl"):
        return log("     no openssl program: not tried")
    one, two = make_certificate("one"), make_certificate("two")
    certificate, key = os.path.join(e2e.WORK, "server.pem"), os.path.join(e2e.WORK, "server.key")

    def install(pair):
        shutil.copy(pair[0], certificate)
        shutil.copy(pair[1], key)
    install(one)
    settings = ("tls.certificate=" + certificate, "tls.key=" + key, "admin.address=127.0.0.1", "admin.port=0", "tls.admin=false")
    try:
        server = Guarded(*GENEROUS, *settings)
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
    with Guarded(*GENEROUS, "cache.bytes=64KiB") as server:
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
        body, kind = multipart([("image", read_file(e2e.FILES, "good.png")[:100]), ("text", "x")])
        for _ in range(2):
            same(server.ask("POST", "/v1/audit", body=body, headers={"Content-Type": kind})[0], 422, "what fails is not kept")
    with Guarded(*GENEROUS) as server:
        check(all("cached" not in json.loads(server.ask_audit()[2]) for _ in range(2)), "off unless asked for")


# ---- metrics ----

def test_metrics_text_is_valid():
    with Guarded(*GENEROUS) as server:
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
        if e2e.ARGS.promtool:
            out = subprocess.run([e2e.ARGS.promtool, "check", "metrics"], input=text.encode(), capture_output=True)
            check(out.returncode == 0 and not out.stderr, out.stderr.decode())
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


# ---- images decoded in a helper process ----

def children(pid):
    out = []
    for task in os.listdir(f"/proc/{pid}/task"):
        out += read_file("/proc", str(pid), "task", task, "children").split()
    return [int(x) for x in out]


def test_isolated_decoder():
    settings = (*GENEROUS, "decode.isolation=process", "decode.timeout=1h")
    with Guarded(*GENEROUS) as server:
        reference = [json.loads(server.ask_audit(t)[2])["labels"] for t in ("x", "y")]
    try:
        server = Guarded(*settings, env=ENVIRONMENT)
    except AssertionError as e:
        if "without libseccomp" in str(e):
            return log("     built without libseccomp: not tried")
        raise
    with server:
        key, helpers = KEYS["inference"], children(server.process.pid)
        same(len(helpers), 2, "helpers: one for audits, one for trials")
        status = read_file("/proc", str(helpers[0]), "status").decode()
        same(re.search(r"NoNewPrivs:\t(\d)", status).group(1), "1", "NoNewPrivs")
        same(re.search(r"Seccomp:\t(\d)", status).group(1), "2" if e2e.SLOW == 1 else "0", "Seccomp")
        if os.access(f"/proc/{helpers[0]}/environ", os.R_OK):
            check(KEYS["inference"].encode() not in read_file("/proc", str(helpers[0]), "environ"), "the helper was handed a key")
        same([json.loads(server.ask_audit(t, key=key)[2])["labels"] for t in ("x", "y")], reference, "labels")
        body, kind = multipart([("image", read_file(e2e.FILES, "truncated.jpg")), ("text", "x")])
        same(server.ask("POST", "/v1/audit", key, body=body, headers={"Content-Type": kind})[0], 422, "a broken image")
        same(children(server.process.pid), helpers, "nobody died of it")
        # They are killed, as by a lack of memory: nobody notices.
        for h in helpers:
            os.kill(h, signal.SIGKILL)
        same([server.ask_audit(key=key)[0] for _ in range(4)], [200] * 4, "after helpers were killed")
        # One dies with an image in its hands: that is refused, nothing else is.
        wait_for(lambda: children(server.process.pid), what="helpers")
        for h in children(server.process.pid):
            os.kill(h, signal.SIGSTOP)
        with e2e.concurrent.futures.ThreadPoolExecutor(4) as pool:
            answers = [pool.submit(server.ask_audit, key=key) for _ in range(4)]
            wait_for(lambda: server.ask("GET", "/metrics", KEYS["metrics"])[2].count(b"winnow_requests_in_flight 4"), what="4 in flight")
            same(server.ask("GET", "/v2/health/live")[0], 200, "live")
            time.sleep(0.2)
            for h in children(server.process.pid):
                os.kill(h, signal.SIGSEGV)
                os.kill(h, signal.SIGCONT)
            answers = [a.result() for a in answers]
        same(sorted(a[0] for a in answers), [200, 200, 200, 422], "the four")
        for status, _, body in answers:
            if status == 422:
                same(json.loads(body)["reason"], "undecodable_image", body)
                check("the decoder crashed on this image" in json.loads(body)["detail"], body)
        same(server.ask_audit(key=key)[0], 200, "afterwards")
        check(b"winnow_decoder_restarts_total" in server.ask("GET", "/metrics", KEYS["metrics"])[2])
        helpers = children(server.process.pid)
    for h in helpers:
        wait_for(lambda: not os.path.exists(f"/proc/{h}"), what="helpers gone with the server")
    with Guarded(*GENEROUS, "decode.isolation=process", "decode.timeout=400ms") as server:
        for h in children(server.process.pid):
            os.kill(h, signal.SIGSTOP)
        status, _, body = server.ask_audit()
        same(status, 422, body)
        check("decoding took longer than 0.4 s" in json.loads(body)["detail"], body)
        # On a machine that is busy enough the next one may take as long, and is replaced as well.
        wait_for(lambda: server.ask_audit()[0] == 200, what="an answer from another helper")


# ---- what goes wrong around the server ----

def test_full_disk_costs_log_lines_only():
    with Guarded(*GENEROUS, "log.access=/dev/full") as server:
        same([server.ask_audit()[0] for _ in range(3)], [200] * 3, "audits")
        wait_for(lambda: server.metrics()["winnow_access_log_dropped_total"] >= 3, what="lines counted as lost")
        same(server.ask("GET", "/v2/health/ready")[0], 200, "ready")
    # The server's own messages too: it must start, serve and stop without them.
    port = 0
    with e2e.socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with open("/dev/full", "wb") as full:
        process = subprocess.Popen([e2e.ARGS.serve, "--registry", os.path.join(e2e.WORK, "registry"), "--set", "model.name=tiny",
                                    "--listen", f"127.0.0.1:{port}"], stdout=full, stderr=full)
    try:
        def live():
            try:
                c = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                c.request("GET", "/v2/health/live")
                return c.getresponse().status == 200
            except OSError:
                return False
        wait_for(live, what="a server without a log")
        process.send_signal(signal.SIGTERM)
        same(process.wait(timeout=60 * e2e.SLOW), 0, "exit code")
    finally:
        process.kill()
        process.wait()


def refused_start(message, *arguments, **kwargs):
    out = subprocess.run([e2e.ARGS.serve, "--listen", "127.0.0.1:0", "--set", "model.name=tiny", *arguments], capture_output=True,
                         timeout=60 * e2e.SLOW, **kwargs)
    text = out.stderr.decode()
    same(out.returncode, 1, text)
    check(message in text and text.count("\n") == 1, text)


def test_unreadable_registry():
    root = os.path.join(e2e.WORK, "unreadable")
    version = os.path.join(root, "tiny", "1")
    make_tiny_model.make(version, 0)
    weights = os.path.join(version, "model.safetensors")
    refused_start("cannot open", "--registry", weights)  # a file
    with Guarded(*GENEROUS, extra=("--registry", root)) as server:
        os.rename(root, root + ".away")  # the disk under a running server goes: what is in memory goes on answering
        same(server.ask_audit()[0], 200, "without the registry")
        same(server.ask("GET", "/v2/health/ready")[0], 200, "ready")
        body = server.ask("POST", "/v2/repository/models/tiny/load", body=b'{"parameters":{"version":"7"}}')[2]
        check(b"/proc/" not in body, body)
        same(server.ask_audit()[0], 200, "after a load that failed")
    os.rename(root + ".away", root)
    with open(weights, "r+b") as f:
        f.truncate(100)
    refused_start("model.safetensors", "--registry", root)
    os.remove(weights)
    os.mkfifo(weights)
    refused_start("special file", "--registry", root)  # and it does not wait for a writer
    os.remove(weights)
    shutil.rmtree(version)
    make_tiny_model.make(version, 0)
    os.chmod(version, 0)
    if os.getuid() != 0:
        refused_start("unreadable/tiny", "--registry", root)
    elif subprocess.run([e2e.ARGS.serve, "--version"], user=65534, group=65534, extra_groups=[], capture_output=True).returncode == 0:
        os.chmod(e2e.WORK, 0o755)
        refused_start("unreadable/tiny", "--registry", root, user=65534, group=65534, extra_groups=[])
    os.chmod(version, 0o755)


def test_wall_clock_jumps_change_nothing():
    # By inspection: the wall clock is for stamps in logs and for the start of the process, and nothing waits by it.
    server_dir = os.path.join(e2e.HERE, "..", "..", "server")
    for name in sorted(os.listdir(server_dir)):
        text = read_file(server_dir, name).decode()
        uses = re.findall(r"CLOCK_REALTIME|gettimeofday|\btime\(NULL\)", text)
        check(not uses or (name in ("log.c", "metrics.c") and len(uses) == 1), f"{name}: {uses}")
        if "pthread_cond_timedwait" in text and name != "http_watch.c":  # which waits on what http_listen.c made
            check("pthread_condattr_setclock" in text, name + " waits by the wall clock")
    shim = os.path.join(e2e.ARGS.shims, "libshim_clock.so")
    if e2e.SLOW > 1 or not os.path.exists(shim):
        return log("     no shim: not tried")
    with Guarded(*GENEROUS, "cache.bytes=64KiB", "http.idle_timeout=30s", "rates.inference=1000", env={"LD_PRELOAD": shim}) as server:
        for i in range(12):
            status, _, body = server.ask_audit(str(i % 6))
            same(status, 200, body)
            check(0 < json.loads(body)["timing_ms"]["total"] < 50000, body)
        m = server.settled_metrics()
        same(m["winnow_cache_hits_total"], 6, "answers from the cache, whatever the date")
        check(m["winnow_request_duration_seconds_sum"] < 600, "durations")
        stamps = {line["time"][:4] for line in server.access_log()}
        check(len(stamps) > 1, f"the shim did not work: {stamps}")


class Allocations:
    """shim_allocation.c's file of three numbers."""

    def __init__(self):
        self.path = os.path.join(e2e.WORK, "allocations")
        with open(self.path, "wb") as f:
            f.write(bytes(24))
        with open(self.path, "r+b") as f:
            self.memory = mmap.mmap(f.fileno(), 24)

    def arm(self, k):
        self.memory[:] = struct.pack("qqq", k, 0, 0)

    @property
    def calls(self):
        return struct.unpack("qqq", self.memory)[1]

    @property
    def failed(self):
        return struct.unpack("qqq", self.memory)[2]


def test_every_allocation_may_fail():
    shim = os.path.join(e2e.ARGS.shims, "libshim_allocation.so")
    if e2e.SLOW > 1 or not os.path.exists(shim):
        return log("     no shim: not tried")
    allocations = Allocations()
    environment = {"LD_PRELOAD": shim, "SHIM_CONTROL": allocations.path}
    # Loading: the server starts, or says one line and ends. Some of all the places, the early ones more densely.
    arguments = ["--registry", os.path.join(e2e.WORK, "registry"), "--set", "model.name=tiny", "--listen", "127.0.0.1:0"]
    allocations.arm(0)
    with Guarded(*GENEROUS, env=environment):
        total = allocations.calls
    check(total > 100, f"only {total} allocations were seen")
    places = sorted({*range(1, 12), *(int(total ** (i / 24)) for i in range(9, 25)), *(total * i // 24 for i in range(1, 24))})
    ended = 0
    for k in places:
        allocations.arm(k)
        process = subprocess.Popen([e2e.ARGS.serve, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                   env=dict(os.environ, **environment))
        text = b""
        while b"listening on" not in text:
            line = process.stderr.readline()
            text += line
            if not line:
                break
        if b"listening on" in text:
            process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        code = process.wait(timeout=60)
        ended += code != 0
        check(code in ((0, 1) if b"listening on" in text else (1, 2)), f"allocation {k} failed: exit code {code}: {text + rest}")
        check(code == 0 or text.count(b"\n") >= 1, f"allocation {k} failed: exit code {code} without a word")
    check(ended > len(places) / 3, f"{ended} of {len(places)} starts failed: the shim does not work")
    # Answering: every allocation of a request in turn, until there are no more. Who gets no answer sees the connection closed.
    with Guarded(*GENEROUS, "cache.bytes=64KiB", env=environment) as server:
        same(server.ask_audit("first")[0], 200, "warm")
        statuses, k = {}, 0
        while True:
            k += 1
            allocations.arm(k)
            try:
                status = server.ask_audit(f"text {k}")[0]
            except (OSError, http.client.HTTPException):
                status = "closed"
            statuses[status] = statuses.get(status, 0) + 1
            if not allocations.failed:
                break
            check(status in (200, 429, 500, "closed"), f"allocation {k} failed: {status}")
            check(server.process.poll() is None, f"allocation {k} failed: the server is gone: {server.errors()}")
            check(k < 1000)
        allocations.arm(0)
        log(f"     {len(places)} of {total} allocations while loading; {k} while answering: {statuses}")
        check(k > 5 and sum(v for s, v in statuses.items() if s != 200) >= 3, statuses)
        same(server.ask_audit("afterwards")[0], 200, "afterwards")
        allocations.arm(3)
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "reloaded" in server.errors(), what="a reload, or why there was none")
        allocations.arm(0)
        same(server.settled_metrics()["winnow_requests_in_flight"], 0, "nothing is left behind")


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--serve", required=True)
    ap.add_argument("--prune", required=True)
    ap.add_argument("--promtool", default="")
    ap.add_argument("--shims", default="")
    ap.add_argument("--only", default="")
    e2e.ARGS = ap.parse_args()
    with open(e2e.ARGS.serve, "rb") as f:
        e2e.SLOW = 4 if b"__asan_init" in f.read() else 1
    e2e.WORK = tempfile.mkdtemp(prefix="winnow-guard-")
    try:
        make_tiny_model.make(os.path.join(e2e.WORK, "registry", "tiny", "2"), 0)
        failed = 0
        for name, test in list(globals().items()):
            if not name.startswith("test_") or e2e.ARGS.only not in name:
                continue
            start = time.monotonic()
            try:
                test()
                log(f"ok   {name} ({time.monotonic() - start:.1f} s)")
            except Exception:  # a test's failure, whatever it is, must not hide the others
                failed += 1
                log(f"FAIL {name}\n{traceback.format_exc()}")
        return 1 if failed else 0
    finally:
        shutil.rmtree(e2e.WORK)


if __name__ == "__main__":
    sys.exit(main())
