#!/usr/bin/env python3
"""winnow-serve over real HTTP, with a tiny model. Standard library only.

  e2e.py --serve PATH/winnow-serve --prune PATH/winnow-prune [--promtool PATH] [--only NAME]

Every test is a function test_*; they run in the order written, each against servers it starts itself.
The exit code is 1 when one fails. cases/*.json are requests that must be refused, with the exact answer.
"""
import argparse
import base64
import concurrent.futures
import glob
import http.client
import json
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import make_tiny_model  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
SAMPLES = os.path.join(HERE, "..", "samples", "test")
FILES = os.path.join(HERE, "cases", "files")
ARGS = None
WORK = None
SLOW = 1  # tests under a sanitizer wait longer


def log(message):
    print(message, flush=True)


class Server:
    """A running winnow-serve. Leaving the context stops it and checks that it drained, exited 0 and said nothing odd."""

    def __init__(self, *settings, model="registry", env=None, expect_exit=0, extra=()):
        command = [ARGS.serve, "--listen", "127.0.0.1:0"]
        command += ["--registry", os.path.join(WORK, "registry"), "--set", "model.name=tiny"] if model == "registry" else [
            "--model-dir", os.path.join(WORK, model)]
        for s in settings:
            command += ["--set", s]
        command += list(extra)
        self.expect_exit = expect_exit
        # Read through their names: a descriptor shared with the server would share its write position too.
        self.output = tempfile.mkdtemp(dir=WORK)
        environment = {k: v for k, v in dict(os.environ, **(env or {})).items() if v is not None}
        with open(os.path.join(self.output, "stdout"), "ab") as out, open(os.path.join(self.output, "stderr"), "ab") as err:
            self.process = subprocess.Popen(command, stdout=out, stderr=err, env=environment)
        self.port = None
        deadline = time.monotonic() + 60
        while self.port is None:
            found = re.search(r"listening on \S+ port (\d+)", self.errors())
            if found:
                self.port = int(found.group(1))
            elif self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError("the server did not start: " + self.errors())
            else:
                time.sleep(0.02)

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

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def request(self, method, path, body=None, headers=None, chunked=False):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
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
            r = c.getresponse()
            return r.status, dict((k.lower(), v) for k, v in r.getheaders()), r.read()
        finally:
            c.close()

    def audit(self, image, text="", headers=None, **fields):
        body, kind = multipart([("image", image), ("text", text)] + list(fields.items()))
        return self.request("POST", "/v1/audit", body, {"Content-Type": kind, **(headers or {})})

    def metrics(self):
        status, _, body = self.request("GET", "/metrics")
        assert status == 200, status
        return {m.group(1): float(m.group(2)) for m in re.finditer(r"^([a-z_]+(?:\{[^}]*\})?) (\S+)$", body.decode(), re.M)}

    def settled_metrics(self):
        """A request is counted after its answer has left: wait until none is between the two."""
        wait_for(lambda: self.metrics()["winnow_requests_in_flight"] == 0, what="nothing in flight")
        return self.metrics()

    def stop(self, sig=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(sig)
        code = self.process.wait(timeout=60)
        errors = self.errors()
        assert code == self.expect_exit, f"exit code {code}: {errors}"
        for bad in ("Sanitizer", "runtime error", "panic", " ERROR "):
            assert bad not in errors, errors
        return errors

    def __enter__(self):
        return self

    def __exit__(self, kind, *rest):
        if kind:
            self.process.kill()
            self.process.wait()
            log(self.errors())
        else:
            self.stop()


def multipart(fields, boundary="----winnow7MA4YWxkTrZu0gW"):
    out = bytearray()
    for name, value in fields:
        value = value.encode() if isinstance(value, str) else value
        filename = '; filename="ad.jpg"' if name == "image" else ""
        out += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{filename}\r\n\r\n'.encode() + value + b"\r\n"
    out += f"--{boundary}--\r\n".encode()
    return bytes(out), f"multipart/form-data; boundary={boundary}"


def read_file(*path):
    with open(os.path.join(*path), "rb") as f:
        return f.read()


def good_image():
    return read_file(FILES, "good.png")


def check(condition, message=""):
    if not condition:
        raise AssertionError(message)


def same(found, expected, what):
    check(found == expected, f"{what}: found {found!r}, expected {expected!r}")


def wait_for(condition, seconds=20, what="condition"):
    end = time.monotonic() + seconds * SLOW
    while not condition():
        check(time.monotonic() < end, f"{what} did not come true in {seconds * SLOW} s")
        time.sleep(0.01)


def classify(image_path, text, assist="", model=None):
    model = model or os.path.join(WORK, "registry", "tiny", "2")
    command = [ARGS.prune, "classify", "--model", model, "--image", image_path, "--text", text]
    out = subprocess.run(command + (["--assist", assist] if assist else []), capture_output=True, check=True)
    return json.loads(out.stdout)


GENEROUS = ("inference.deadline=50s", "inference.max_deadline=60s")


# ---- answers ----

def compare(answer, reference, what):
    same(answer["label"], reference["label"], what)
    same(answer["suggestion"], reference["suggestion"], what)
    scores = {x["name"]: x["score"] for x in answer["labels"]}
    expected = {x["name"]: x["score"] for x in reference["labels"]}
    same(set(scores), set(expected), what)
    for name in expected:
        check(abs(scores[name] - expected[name]) <= 1e-5, f"{what}: {name}: {scores[name]} and {expected[name]}")
    check(abs(sum(scores.values()) - 1) < 1e-5, f"{what}: the scores sum to {sum(scores.values())}")
    ordered = [x["score"] for x in answer["labels"]]
    same(ordered, sorted(ordered, reverse=True), what + ": order")
    same(answer["label"], answer["labels"][0]["name"], what)
    same(answer["score"], answer["labels"][0]["score"], what)


def read_samples():
    with open(os.path.join(SAMPLES, "metadata.jsonl"), encoding="utf-8") as f:
        samples = [json.loads(line) for line in f]
    check(len(samples) > 10)
    return samples[:8] if SLOW > 1 else samples


def test_bundled_model_agrees_with_classify_and_knows_its_ads():
    """The model that a fresh clone serves: as `winnow-prune classify` answers, and right about nearly all of the sample ads."""
    bundled = os.path.join(HERE, "..", "..", "registry")
    version = max((v for v in os.listdir(os.path.join(bundled, "ad-audit")) if v.isdigit()), key=int)
    samples, right = read_samples(), 0
    # an absolute path: Server's join with WORK leaves it as it is
    with Server(*GENEROUS, model=os.path.abspath(os.path.join(bundled, "ad-audit", version))) as server:
        for s in samples:
            path, assist = os.path.join(SAMPLES, s["file_name"]), s.get("assist", "")
            reference = classify(path, s["text"], assist, model=os.path.join(bundled, "ad-audit", version))
            status, _, body = server.audit(read_file(path), s["text"], assist=assist)
            same(status, 200, body)
            compare(json.loads(body), reference, s["file_name"])
            right += json.loads(body)["label"] == s["label"]
    check(right >= 0.8 * len(samples), f"{right} of {len(samples)} sample ads are judged as their label says")


def test_samples_agree_with_classify():
    """Every sample ad, as multipart and as JSON, gives the probabilities of `winnow-prune classify`."""
    samples = read_samples()
    suggestions, labels = set(), set()
    with Server(*GENEROUS) as server:
        for s in samples:
            path, text, assist = os.path.join(SAMPLES, s["file_name"]), s["text"], s.get("assist", "")
            reference = classify(path, text, assist)
            image = read_file(path)
            status, headers, body = server.audit(image, text, assist=assist, data_id=s["file_name"])
            same(status, 200, body)
            answer = json.loads(body)
            compare(answer, reference, s["file_name"])
            same(answer["data_id"], s["file_name"], "data_id")
            same(headers["x-request-id"], answer["request_id"], "X-Request-Id")
            check(re.fullmatch("[0-9a-f]{32}", answer["request_id"]), answer["request_id"])
            same(answer["model"]["name"], "tiny", "model")
            same(answer["model"]["version"], "2", "version")
            same(answer["model"]["digest"], reference["model"]["digest"], "digest")
            timing = answer["timing_ms"]
            same(list(timing), ["queue", "decode", "preprocess", "inference", "total"], "timing_ms")
            parts = sum(v for k, v in timing.items() if k != "total")
            check(0 < parts <= timing["total"] + 0.01, timing)
            document = {"image": base64.b64encode(image).decode(), "text": text, "assist": assist, "model": "tiny"}
            status, _, body = server.request("POST", "/v1/audit", json.dumps(document).encode(),
                                             {"Content-Type": "application/json", "X-Request-Id": "my-id.7"})
            same(status, 200, body)
            compare(json.loads(body), reference, s["file_name"] + " as JSON")
            same(json.loads(body)["request_id"], "my-id.7", "request_id")
            check("data_id" not in json.loads(body))
            suggestions.add(answer["suggestion"])
            labels.add(answer["label"])
        check(len(labels) > 1 and len(suggestions) > 1, "the model says the same of everything: this test would show nothing")
        line = server.logged(answer["request_id"])
        same((line["status"], line["reason"], line["label"], line["model"], line["version"], line["data_id"]),
             (200, "ok", answer["label"], "tiny", "2", samples[-1]["file_name"]), "access log")
        check(line["inference_ms"] > 0 and line["bytes_out"] > 300 and line["bytes_in"] > 1000, line)
        m = server.settled_metrics()
        same(m['winnow_request_duration_seconds_count'], 2 * len(samples), "requests")
        same(sum(v for k, v in m.items() if k.startswith("winnow_decisions_total")), 2 * len(samples), "decisions")


def test_java_style_chunked_and_keep_alive():
    with Server(*GENEROUS) as server:
        body, kind = multipart([("image", good_image()), ("text", "x")])
        c = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        for i in range(5):
            pieces = iter([body[:7], body[7:1000], body[1000:]])
            c.request("POST", "/v1/audit", pieces, {"Content-Type": kind + "; charset=UTF-8"}, encode_chunked=True)
            r = c.getresponse()
            same(r.status, 200, r.read())
            r.read()
            sock = sock if i else c.sock
            check(c.sock is sock, "the connection was not kept")
        c.close()


def test_cases():
    """Every case in cases/ gets exactly its status and body, and the server is well afterwards."""
    names = sorted(glob.glob(os.path.join(HERE, "cases", "*.json")))
    check(len(names) > 50)
    wrong = []
    with Server(*GENEROUS) as server:
        for name in names:
            with open(name, encoding="utf-8") as f:
                case = json.load(f)
            try:
                run_case(server, case)
            except (AssertionError, OSError, http.client.HTTPException) as e:
                wrong.append(f"{os.path.basename(name)} ({case['why']}): {e or type(e)}")
        same(server.audit(good_image())[0], 200, "a good request afterwards")
        m = server.settled_metrics()
        same(m["winnow_requests_in_flight"], 0, "in flight")
        same(m["winnow_queue_depth"], 0, "queue depth")
        for line in server.access_log():
            check(line["status"] == 200 or line["reason"] != "ok", line)
    check(not wrong, "\n".join(wrong))


def case_body(r):
    if r.get("no_body"):
        return None, {}
    if "multipart" in r:
        fields = []
        for p in r["multipart"]:
            value = (read_file(FILES, p["file"]) if "file" in p else bytes.fromhex(p["hex"]) if "hex" in p
                     else p["repeat"][0] * p["repeat"][1] if "repeat" in p else p["text"])
            fields.append((p["name"], value))
        body, kind = multipart(fields)
        return body, {"Content-Type": kind}
    if "body_hex" in r:
        return bytes.fromhex(r["body_hex"]), {}
    body = r["body"]
    if isinstance(body, dict):
        pieces = body["repeat"]
        body = "".join(s * n for s, n in zip(pieces[::2], pieces[1::2]))
    return body.encode(), {}


def run_case(server, case):
    r, e = case["request"], case["expect"]
    body, headers = case_body(r)
    headers.update(r.get("headers", {}))
    status, got, text = server.request(r.get("method", "POST"), r.get("path", "/v1/audit"), body, headers, r.get("chunked"))
    same(status, e["status"], text)
    document = json.loads(text)
    same(document["reason"], e["reason"], "reason")
    same(got["x-request-id"], document["request_id"], "X-Request-Id")
    for k, v in e.get("headers", {}).items():
        same(got.get(k.lower()), v, k)
    check(not re.search(rb"/proc/|/tmp/|0x[0-9a-f]{6}", text), f"says too much: {text}")
    if "v2_error" in e:
        same(got["content-type"], "application/json", "Content-Type")
        same(document["error"], e["v2_error"], "error")
        return
    same(got["content-type"], "application/problem+json", "Content-Type")
    same(sorted(document), ["detail", "reason", "request_id", "status", "title", "type"], "members")
    same(document["status"], e["status"], "status")
    same(document["type"], "urn:winnow:problem:" + e["reason"], "type")
    if "detail" in e:
        same(document["detail"], e["detail"], "detail")
    else:
        check(e["detail_contains"] in document["detail"], f"detail: {document['detail']}")


def test_management_endpoints_and_metrics():
    with Server(*GENEROUS) as server:
        def get(path, expected=200, method="GET"):
            status, headers, body = server.request(method, path)
            same(status, expected, path)
            return json.loads(body) if method == "GET" else body
        same(get("/v2")["name"], "winnow-serve", "/v2")
        same(get("/v2/health/live"), {"live": True}, "live")
        same(get("/v2/health/ready"), {"ready": True}, "ready")
        same(get("/v2/health/ready", method="HEAD"), b"", "HEAD")
        wait_for(lambda: [line["bytes_out"] for line in server.access_log() if line["method"] == "HEAD"] == [0], what="HEAD's log line")
        m = get("/v2/models/tiny")
        same((m["name"], m["versions"], m["inputs"][0]["name"]), ("tiny", ["2"], "image"), "model")
        same(len(m["parameters"]["labels"]), 5, "labels")
        same(get("/v2/models/tiny/versions/2"), m, "version")
        same(get("/v2/models/tiny/ready"), {"name": "tiny", "version": "2", "ready": True}, "model ready")
        same(get("/v2/models/tiny/versions/2/ready")["ready"], True, "version ready")
        same(server.audit(good_image())[0], 200, "audit")
        status, headers, body = server.request("GET", "/metrics")
        check(headers["content-type"].startswith("text/plain; version=0.0.4"), headers)
        check(b'le="0.09"' in body)
        check(b'winnow_model_info{name="tiny",version="2",digest="sha256:' in body)
        if ARGS.promtool:
            out = subprocess.run([ARGS.promtool, "check", "metrics"], input=body, capture_output=True)
            check(out.returncode == 0 and not out.stderr, out.stderr.decode())
        values = server.settled_metrics()
        check(abs(values["process_start_time_seconds"] - time.time()) < 600)
        check(values["process_resident_memory_bytes"] > 1e6)
        same(values['winnow_stage_duration_seconds_count{stage="inference"}'], 1, "inference count")


# ---- keys ----

def test_keys():
    keys = {"WINNOW_INFERENCE_KEY": "inference-key-0001", "WINNOW_METRICS_KEY": "metrics-key-00002"}
    with Server(*GENEROUS, env=keys) as server:
        def audit(**headers):
            status, h, body = server.audit(good_image(), "x", {k.replace("_", "-"): v for k, v in headers.items()})
            if status == 401:
                check(h["www-authenticate"].startswith("Bearer"))
            return status
        same(audit(), 401, "no key")
        same(audit(Authorization="Bearer inference-key-0001"), 200, "Bearer")
        same(audit(Authorization="bearer inference-key-0001"), 200, "bearer")
        same(audit(X_Api_Key="inference-key-0001"), 200, "X-Api-Key")
        same(audit(Authorization="Bearer inference-key-000"), 401, "prefix")
        same(audit(Authorization="Basic inference-key-0001"), 401, "Basic")
        same(audit(Authorization="Bearer metrics-key-00002"), 403, "metrics key")
        same(server.request("GET", "/metrics")[0], 401, "metrics without key")
        same(server.request("GET", "/metrics", headers={"X-Api-Key": "inference-key-0001"})[0], 403, "inference key")
        same(server.request("GET", "/metrics", headers={"X-Api-Key": "metrics-key-00002"})[0], 200, "metrics key")
        same(server.request("GET", "/v2/models/tiny")[0], 401, "model")
        same(server.request("GET", "/v2/health/ready")[0], 200, "ready")
        text = server.errors() + json.dumps(server.access_log())
        for k in keys.values():
            check(k not in text, "a key was logged")


def run_failing(*arguments, env=None):
    out = subprocess.run([ARGS.serve, *arguments], capture_output=True, timeout=60, env=dict(os.environ, **(env or {})))
    return out.returncode, out.stderr.decode()


def test_start_refusals():
    registry = os.path.join(WORK, "registry")

    def refused(code, message, *arguments, env=None):
        got, text = run_failing(*arguments, env=env)
        same(got, code, text)
        check(message in text and text.count("\n") == 1, text)
    refused(1, "listen.address: 0.0.0.0 can be reached from outside, expected an inference key", "--registry", registry,
            "--listen", "0.0.0.0:0", "--set", "model.name=tiny")
    refused(1, "no-such-registry: cannot open the model registry", "--registry", "no-such-registry")
    refused(1, "/absent: cannot open the directory: No such file", "--registry", registry, "--set", "model.name=absent")
    refused(1, "broken/1", "--registry", registry, "--set", "model.name=broken", "--listen", "0")
    refused(2, 'listen.address: found "example.org"', "--listen", "example.org:80")
    refused(2, "limits.bodi", "--set", "limits.bodi=1")
    refused(2, "unrecognized option", "--no-such-option")
    path = os.path.join(WORK, "bad.yaml")
    with open(path, "w", encoding="utf-8") as f:
        f.write("listen:\n  port: 8080\n  adress: 127.0.0.1\n")
    refused(2, path + ":3:", "--config", path)
    refused(2, path + ":3:", "--config", path, "--check-config")
    with Server(*GENEROUS) as server:
        refused(1, f"cannot listen on 127.0.0.1 port {server.port}: Address already in use", "--registry", registry, "--set",
                "model.name=tiny", "--listen", f"127.0.0.1:{server.port}")
    out = subprocess.run([ARGS.serve, "--print-config"], capture_output=True, check=True)
    with open(os.path.join(HERE, "..", "..", "docs", "server.md"), "rb") as f:
        check(b"```yaml\n" + out.stdout + b"```" in f.read(), "docs/server.md does not quote --print-config")
    with open(path, "wb") as f:
        f.write(out.stdout)
    again = subprocess.run([ARGS.serve, "--config", path, "--print-config"], capture_output=True, check=True)
    same(again.stdout, out.stdout, "--print-config of what it printed")
    same(run_failing("--config", path, "--check-config"), (0, ""), "--check-config")
    help_text = subprocess.run([ARGS.serve, "--help"], capture_output=True, check=True).stdout.decode()
    check("Examples:" in help_text and "--check-config" in help_text)


def test_digest_of_a_changed_file_is_refused():
    directory = os.path.join(WORK, "changed")
    make_tiny_model.make(directory, seed=3)
    with open(os.path.join(directory, "model.safetensors"), "r+b") as f:
        f.seek(-1, os.SEEK_END)
        f.write(b"\x01")
    code, text = run_failing("--model-dir", directory, "--listen", "0")
    same(code, 1, text)
    check("model.safetensors" in text and "/proc/" not in text and directory in text, text)


# ---- slow and vanishing clients ----

def test_slow_clients():
    with Server(*GENEROUS, "http.receive_timeout=1s", "http.idle_timeout=1s") as server:
        body, kind = multipart([("image", good_image()), ("text", "x")])
        head = (f"POST /v1/audit HTTP/1.1\r\nHost: x\r\nX-Request-Id: slow\r\nContent-Type: {kind}\r\n"
                f"Content-Length: {len(body)}\r\n\r\n").encode()
        # A body that drips steadily: never idle, never done.
        s = server.connect()
        s.sendall(head)
        start, answer = time.monotonic(), b""
        while not select.select([s], [], [], 0.1)[0]:
            check(time.monotonic() - start < 20 * SLOW, "the dripping body was never refused")
            s.sendall(body[:1])
        s.settimeout(5)
        try:
            while piece := s.recv(4096):
                answer += piece
        except ConnectionResetError:
            pass
        check(answer.startswith(b"HTTP/1.1 408 "), answer)
        problem = json.loads(answer.split(b"\r\n\r\n")[1])
        same((problem["status"], problem["reason"], problem["request_id"]), (408, "receive_timeout", "slow"), "problem")
        same((server.logged("slow")["status"], server.logged("slow")["reason"]), (408, "receive_timeout"), "access log")
        s.close()
        # Headers that drip.
        s = server.connect()
        start = time.monotonic()
        try:
            while True:
                s.sendall(b"X")
                check(time.monotonic() - start < 20 * SLOW, "dripping headers were never cut off")
                if select.select([s], [], [], 0.1)[0]:
                    if s.recv(4096) == b"":
                        break
        except (BrokenPipeError, ConnectionResetError):
            pass
        s.close()
        # Nothing at all.
        s = server.connect()
        s.settimeout(20 * SLOW)
        same(s.recv(1), b"", "an idle connection")
        s.close()
        # Meanwhile and afterwards the others are served.
        same(server.audit(good_image())[0], 200, "a good request")
        wait_for(lambda: server.metrics()["winnow_connections"] <= 1, what="connections closed")


def hang_up(sock):
    """RST instead of FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def test_disconnects_in_every_phase():
    body, kind = multipart([("image", good_image()), ("text", "x")])
    head = f"POST /v1/audit HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    whole = head + body
    with Server(*GENEROUS, "inference.queue_capacity=64") as server:
        cuts = [0, 1, 10, len(head) - 1, len(head), len(head) + 1, len(head) + len(body) // 2, len(whole) - 1]
        for cut in cuts:
            for close in (hang_up, socket.socket.close):
                s = server.connect()
                s.sendall(whole[:cut])
                time.sleep(0.01)
                close(s)
        for delay in (0, 0, 0, 0.001, 0.003, 0.01):
            for close in (hang_up, socket.socket.close):
                s = server.connect()
                s.sendall(whole)
                time.sleep(delay)
                close(s)
        wait_for(lambda: server.metrics()["winnow_requests_in_flight"] == 0, what="nothing in flight")
        same(server.audit(good_image())[0], 200, "a good request afterwards")
        closed = [x for x in server.access_log() if x["reason"] == "client_closed"]
        check(len(closed) >= 6, f"{len(closed)} lines with client_closed")


def slow_server(*settings):
    """A model of which one run takes tens of milliseconds, so that a queue can be seen."""
    return Server(*settings, model="slow")


def test_hung_up_client_costs_no_inference():
    with slow_server(*GENEROUS, "inference.queue_capacity=64") as server:
        body, kind = multipart([("image", good_image()), ("text", "x")])
        head = f"POST /v1/audit HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        waiting = [server.connect() for _ in range(20)]
        for s in waiting:
            s.sendall(head + body)
        wait_for(lambda: server.metrics()["winnow_requests_in_flight"] >= 10, what="requests in flight")
        for s in waiting:
            hang_up(s)
        wait_for(lambda: server.metrics()["winnow_requests_in_flight"] == 0, what="nothing in flight")
        m = server.settled_metrics()
        closed, runs = m['winnow_sheds_total{reason="client_closed"}'], m["winnow_batches_total"]
        check(closed >= 8, f"{closed} given up")
        check(runs <= 20 - 8, f"{runs} runs of the model for clients that had left")


# ---- overload ----

def parallel(server, count, headers=None):
    image = good_image()
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda i: server.audit(image, str(i), headers), range(count)))


def test_full_queue_is_429():
    with slow_server(*GENEROUS, "inference.queue_capacity=2") as server:
        answers = parallel(server, 16)
        statuses = [a[0] for a in answers]
        check(set(statuses) == {200, 429}, statuses)
        check(statuses.count(429) >= 5, statuses)
        for status, headers, body in answers:
            if status == 429:
                check(1 <= int(headers["retry-after"]) <= 60, headers)
                same(json.loads(body)["reason"], "queue_full", "reason")
        m = server.settled_metrics()
        same(m['winnow_sheds_total{reason="queue_full"}'], statuses.count(429), "sheds")
        same(m['winnow_requests_total{code="200"}'] >= statuses.count(200), True, "requests")
        same(m["winnow_queue_capacity"], 2, "capacity")
        same(server.audit(good_image())[0], 200, "afterwards")


def test_deadlines():
    with slow_server("inference.deadline=50s", "inference.queue_capacity=64") as server:
        same(server.audit(good_image())[0], 200, "generous")
        status, _, body = server.audit(good_image(), "x", {"X-Deadline-Ms": "1"})
        same(status, 504, body)
        check(json.loads(body)["reason"] in ("deadline_exceeded", "deadline_unreachable"), body)
        # Many at once: those at the back cannot make it, and are told early instead of being computed in vain.
        took = min(json.loads(server.audit(good_image())[2])["timing_ms"]["inference"] for _ in range(5))
        before = server.settled_metrics()["winnow_batches_total"]
        answers = parallel(server, 24, {"X-Deadline-Ms": str(int(took * 5) + 5)})
        statuses = [a[0] for a in answers]
        check(set(statuses) <= {200, 504} and 504 in statuses, statuses)
        m = server.settled_metrics()
        runs = m["winnow_batches_total"] - before
        check(runs < 24, f"{runs} runs for {statuses.count(200)} answers in time")
        sheds = m['winnow_sheds_total{reason="deadline_exceeded"}'] + m['winnow_sheds_total{reason="deadline_unreachable"}']
        same(sheds, statuses.count(504) + 1, "sheds")
        for status, _, body in answers:
            if status == 200:
                check(json.loads(body)["timing_ms"]["total"] <= int(took * 5) + 5.01, body)
        # The estimate does not lock everybody out for good.
        time.sleep(1.1)
        same(server.audit(good_image())[0], 200, "afterwards")


def open_loop(server, rate, seconds, headers):
    """Sends at the times of a schedule, whatever comes back; (status, headers, body) of each."""
    image, count = good_image(), int(rate * seconds)
    start = time.monotonic() + 0.05

    def one(i):
        time.sleep(max(0, start + i / rate - time.monotonic()))
        return server.audit(image, str(i), headers)
    with concurrent.futures.ThreadPoolExecutor(min(count, 100)) as pool:
        answers = list(pool.map(one, range(count)))
    return answers, time.monotonic() - start


def overload(server):
    """One try at three times the rate the server sustains: an empty string, or what was wrong with it."""
    start, count = time.monotonic(), 24
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        timings = list(pool.map(lambda i: json.loads(server.audit(good_image(), str(i))[2])["timing_ms"], range(count)))
    most = count / (time.monotonic() - start)
    took = sorted(t["inference"] for t in timings)[count // 2]
    before = server.settled_metrics()["winnow_batched_requests_total"]
    answers, lasted = open_loop(server, min(3 * most, 300), 2, {"X-Deadline-Ms": str(int(took * 8) + 20)})
    for status, headers, body in answers:
        check(status in (200, 429, 504), body)
        check(status == 200 or (1 <= int(headers["retry-after"]) <= 60 and json.loads(body)["reason"]), headers)
    good = [a[0] for a in answers].count(200)
    runs = server.settled_metrics()["winnow_batched_requests_total"] - before
    log(f"     {most:.0f}/s sustained; of {len(answers)} sent {good} answered in time in {lasted:.1f} s, {runs - good:.0f} runs in vain")
    if good < 0.5 * most * lasted:
        return f"{good} answers in time in {lasted} s, when {most} a second are possible"
    return f"{runs} runs of the model for {good} answers in time" if runs > 1.3 * good + 2 else ""


def test_overload_keeps_goodput_and_liveness():
    with slow_server("inference.deadline=50s", "inference.queue_capacity=64") as server:
        alive, done = [], threading.Event()

        def probe():
            while not done.wait(0.05):
                alive.append(server.request("GET", "/v2/health/live")[0])
        thread = threading.Thread(target=probe)
        thread.start()
        try:
            # The machine may turn slower or faster while it is measured: one good try of three will do.
            wrong = next((w for w in (overload(server) for _ in range(3)) if not w), None)
            check(wrong is not None, "at 3x the rate too little was answered in time, three times")
        finally:
            done.set()
            thread.join()
        check(len(alive) > 5 and set(alive) == {200}, alive)


def test_batches_give_the_same_answers():
    image = good_image()
    with slow_server(*GENEROUS, "inference.max_batch=1", "inference.queue_capacity=64") as server:
        alone = [json.loads(server.audit(image, str(i))[2])["labels"] for i in range(12)]
    with slow_server(*GENEROUS, "inference.max_batch=4", "inference.queue_capacity=64") as server:
        together = [json.loads(a[2])["labels"] for a in parallel(server, 12)]
        m = server.settled_metrics()
        check(m["winnow_batches_total"] < m["winnow_batched_requests_total"], "nothing was batched")
    for a, b in zip(alone, together):
        for x in a:
            y = next(y for y in b if y["name"] == x["name"])
            check(abs(x["score"] - y["score"]) < 1e-4, f"{x} and {y}")


def test_two_instances():
    with slow_server(*GENEROUS, "inference.instances=2", "inference.decode_threads=2") as server:
        same({a[0] for a in parallel(server, 8)}, {200}, "statuses")


# ---- the end ----

def test_sigterm_drains():
    with slow_server(*GENEROUS, "inference.queue_capacity=64") as server:
        results = []
        thread = threading.Thread(target=lambda: results.extend(parallel(server, 8)))
        thread.start()
        wait_for(lambda: server.metrics()["winnow_requests_in_flight"] >= 6, what="requests in flight")
        # A client that is still sending keeps the server from leaving, so that what a new one is told can be seen.
        body, kind = multipart([("image", good_image()), ("text", "x")])
        s = server.connect()
        s.sendall(f"POST /v1/audit HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        s.sendall(body[:50])
        wait_for(lambda: server.metrics()["winnow_requests_in_flight"] >= 1, what="the slow one")
        time.sleep(0.2)
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: server.request("GET", "/v2/health/ready")[0] == 503, what="not ready")
        same(server.request("GET", "/v2/health/live")[0], 200, "live")
        status, headers, text = server.audit(good_image())
        same((status, json.loads(text)["reason"]), (503, "draining"), "a new audit")
        check("retry-after" in headers, headers)
        s.sendall(body[50:])
        check(s.recv(100).startswith(b"HTTP/1.1 200 "), "the one that was still sending")
        thread.join()
        same({r[0] for r in results}, {200}, "those in flight")
        same(server.process.wait(timeout=30 * SLOW), 0, "exit code")
        check("drained after" in server.errors(), server.errors())


def test_drain_is_bounded():
    with slow_server(*GENEROUS, "inference.queue_capacity=64", "drain.timeout=100ms") as server:
        results = []
        thread = threading.Thread(target=lambda: results.extend(parallel(server, 24)))
        thread.start()
        wait_for(lambda: server.metrics()["winnow_requests_in_flight"] >= 20, what="requests in flight")
        start = time.monotonic()
        server.process.send_signal(signal.SIGINT)
        same(server.process.wait(timeout=30 * SLOW), 0, "exit code")
        check(time.monotonic() - start < 10 * SLOW)
        thread.join()
        check({r[0] for r in results} <= {200, 503} and 503 in {r[0] for r in results}, [r[0] for r in results])


def test_openmp_threads_spin_briefly():
    """The server executes itself once for it, which must not show: same process, same name, same arguments."""
    def variables(server):
        lines = read_file("/proc", str(server.process.pid), "environ").split(b"\0")
        return {line for line in lines if line.startswith((b"OMP_WAIT_POLICY=", b"GOMP_SPINCOUNT="))}

    unset = {"OMP_WAIT_POLICY": None, "GOMP_SPINCOUNT": None}
    with Server(env=unset) as server:
        same(variables(server), {b"GOMP_SPINCOUNT=2000"}, "variables")
        same(read_file("/proc", str(server.process.pid), "comm"), b"winnow-serve\n", "process name")
        same(server.audit(good_image(), headers={"X-Deadline-Ms": "50000"})[0], 200, "an audit")
    for chosen in ("OMP_WAIT_POLICY=active", "GOMP_SPINCOUNT=0"):
        name, value = chosen.split("=")
        with Server(env={**unset, name: value}) as server:
            same(variables(server), {chosen.encode()}, "the operator's choice")


def test_second_signal_exits_at_once():
    server = slow_server(*GENEROUS, "drain.timeout=1h")
    s = server.connect()
    s.sendall(b"POST /v1/audit HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n")
    wait_for(lambda: server.metrics()["winnow_requests_in_flight"] == 1, what="in flight")
    server.process.send_signal(signal.SIGTERM)
    wait_for(lambda: server.request("GET", "/v2/health/ready")[0] == 503, what="not ready")
    server.process.send_signal(signal.SIGTERM)
    same(server.process.wait(timeout=10), -signal.SIGTERM, "exit code")
    s.close()


def main():
    global ARGS, WORK, SLOW
    ap = argparse.ArgumentParser()
    ap.add_argument("--serve", required=True)
    ap.add_argument("--prune", required=True)
    ap.add_argument("--promtool", default="")
    ap.add_argument("--only", default="")
    ARGS = ap.parse_args()
    with open(ARGS.serve, "rb") as f:
        SLOW = 4 if b"__asan_init" in f.read() else 1
    WORK = tempfile.mkdtemp(prefix="winnow-e2e-")
    try:
        for version, seed in ((1, 11), (2, 0)):
            make_tiny_model.make(os.path.join(WORK, "registry", "tiny", str(version)), seed)
        os.makedirs(os.path.join(WORK, "registry", "broken", "1"))
        make_tiny_model.make(os.path.join(WORK, "slow"), seed=5, wide=16, name="slow")
        failed = 0
        for name, test in list(globals().items()):
            if not name.startswith("test_") or ARGS.only not in name:
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
        shutil.rmtree(WORK)


if __name__ == "__main__":
    sys.exit(main())
