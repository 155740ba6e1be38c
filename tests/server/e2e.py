#!/usr/bin/env python3
"""winnow-serve over real HTTP, with a tiny model: answers, refusals, management, keys, starts. Standard library only.

  e2e.py --serve PATH/winnow-serve --prune PATH/winnow-prune [--promtool PATH] [--only NAME]

Every test is a function test_*; they run in the order written, each against servers it starts itself.
The exit code is 1 when one fails. cases/*.json are requests that must be refused, with the exact answer.
"""
import base64
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import make_tiny_model  # noqa: E402
from bad_requests import read_cases, run_case  # noqa: E402
from server_process import (BUNDLED, GENEROUS, HERE, RUN, SAMPLES, Server, check, check_promtool, classify,  # noqa: E402
                            good_image, multipart, read_file, run_failing, run_tests, same, wait_for)


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
    return samples[:8] if RUN.slow > 1 else samples


def test_bundled_model_agrees_with_classify_and_knows_its_ads():
    """The model that a fresh clone serves: as `winnow-prune classify` answers, and right about nearly all of the sample ads."""
    versions = os.path.join(BUNDLED, "ad-audit")
    model = os.path.join(versions, max((v for v in os.listdir(versions) if v.isdigit()), key=int))
    samples, right = read_samples(), 0
    with Server(*GENEROUS, model_dir=model) as server:
        for s in samples:
            path, assist = os.path.join(SAMPLES, s["file_name"]), s.get("assist", "")
            reference = classify(path, s["text"], assist, model=model)
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
    wrong = []
    with Server(*GENEROUS) as server:
        for name, case in read_cases():
            try:
                run_case(server, case)
            except (AssertionError, OSError, http.client.HTTPException) as e:
                wrong.append(f"{name} ({case['why']}): {e or type(e)}")
        same(server.audit(good_image())[0], 200, "a good request afterwards")
        m = server.settled_metrics()
        same(m["winnow_requests_in_flight"], 0, "in flight")
        same(m["winnow_queue_depth"], 0, "queue depth")
        for line in server.access_log():
            check(line["status"] == 200 or line["reason"] != "ok", line)
    check(not wrong, "\n".join(wrong))


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
        check_promtool(body)
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


def test_start_refusals():
    """A mistake in the configuration is 2, whatever else fails is 1; --check-config says of the former what the start says."""
    registry = os.path.join(RUN.work, "registry")

    def refused(code, message, *arguments, env=None):
        got, text = run_failing(*arguments, env=env)
        same(got, code, text)
        check(message in text and text.count("\n") == 1, text)
        same(run_failing(*arguments, "--check-config", env=env), (2, text) if code == 2 else (0, ""), "--check-config")
    refused(2, "listen.address: 0.0.0.0 can be reached from outside, expected an inference key", "--registry", registry,
            "--listen", "0.0.0.0:0", "--set", "model.name=tiny")
    refused(2, "no-such-registry: cannot open the model registry", "--registry", "no-such-registry")
    refused(2, "/absent: cannot open the directory: No such file", "--registry", registry, "--set", "model.name=absent")
    refused(2, "/absent: cannot open the model directory: No such file", "--model-dir", os.path.join(registry, "absent"))
    refused(1, "broken/1", "--registry", registry, "--set", "model.name=broken", "--listen", "0")
    refused(2, 'listen.address: found "example.org"', "--listen", "example.org:80")
    refused(2, '--set: limits.bodi: found an unknown key, expected "limits.body" perhaps', "--set", "limits.bodi=1")
    refused(2, '--set: model.others: found "a", expected a list of strings: [a, b]', "--set", "model.others=a")
    refused(2, "--registry and --model-dir: found both", "--registry", registry, "--model-dir", registry)
    refused(2, "unrecognized option", "--no-such-option")
    path = os.path.join(RUN.work, "bad.yaml")
    with open(path, "w", encoding="utf-8") as f:
        f.write("listen:\n  port: 8080\n  adress: 127.0.0.1\n")
    refused(2, path + ":3:", "--config", path)
    with Server(*GENEROUS) as server:
        refused(1, f"cannot listen on 127.0.0.1 port {server.port}: Address already in use", "--registry", registry, "--set",
                "model.name=tiny", "--listen", f"127.0.0.1:{server.port}")
    out = subprocess.run([RUN.serve, "--print-config"], capture_output=True, check=True)
    with open(os.path.join(HERE, "..", "..", "docs", "server.md"), "rb") as f:
        check(b"```yaml\n" + out.stdout + b"```" in f.read(), "docs/server.md does not quote --print-config")
    with open(path, "wb") as f:
        f.write(out.stdout)
    again = subprocess.run([RUN.serve, "--config", path, "--print-config"], capture_output=True, check=True)
    same(again.stdout, out.stdout, "--print-config of what it printed")
    good = subprocess.run([RUN.serve, "--config", path, "--registry", registry, "--set", "model.name=tiny", "--check-config"],
                          capture_output=True, check=True)
    same((good.stdout.startswith(b"the configuration is good; "), good.stderr), (True, b""), "--check-config")
    help_text = subprocess.run([RUN.serve, "--help"], capture_output=True, check=True).stdout.decode()
    check("Examples:" in help_text and "--check-config" in help_text)


# ---- the end ----


def tell_to_go(server):
    server.process.send_signal(signal.SIGTERM)
    wait_for(lambda: server.request("GET", "/v2/health/ready")[0] == 503, what="not ready")


def test_a_server_that_is_about_to_go_serves_on():
    with Server(*GENEROUS, f"drain.delay={2 * RUN.slow}s") as server:
        tell_to_go(server)
        same(server.request("GET", "/v2/health/live")[0], 200, "live")
        same(server.request("GET", "/v2/models/tiny/ready")[0], 503, "the model")
        same(server.metrics()["winnow_ready"], 0, "winnow_ready")
        status, headers, body = server.audit(good_image())
        same((status, headers["connection"].lower()), (200, "close"), body)
        check("draining: " not in server.errors(), "this test came too late: " + server.errors())
        same(server.process.wait(timeout=30 * RUN.slow), 0, "exit code")
        check("not ready any more, serving for another" in server.errors() and "drained after" in server.errors(), server.errors())
    # What comes later than that is refused (overload_e2e.py), and a second signal ends the wait.
    server = Server(*GENEROUS, "drain.delay=1h")
    tell_to_go(server)
    server.process.send_signal(signal.SIGTERM)
    same(server.process.wait(timeout=30 * RUN.slow), -signal.SIGTERM, "exit code")


def test_digest_of_a_changed_file_is_refused():
    directory = os.path.join(RUN.work, "changed")
    make_tiny_model.make(directory, seed=3)
    with open(os.path.join(directory, "model.safetensors"), "r+b") as f:
        f.seek(-1, os.SEEK_END)
        f.write(b"\x01")
    code, text = run_failing("--model-dir", directory, "--listen", "0")
    same(code, 1, text)
    check("model.safetensors" in text and "/proc/" not in text and directory in text, text)


def prepare():
    for version, seed in ((1, 11), (2, 0)):
        make_tiny_model.make(os.path.join(RUN.work, "registry", "tiny", str(version)), seed)
    os.makedirs(os.path.join(RUN.work, "registry", "broken", "1"))


if __name__ == "__main__":
    run_tests(globals(), prepare)
