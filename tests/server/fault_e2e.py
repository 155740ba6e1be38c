#!/usr/bin/env python3
"""What goes wrong around winnow-serve: decoders that die, full disks, registries that cannot be read, clocks that jump, memory that
is not there. Standard library only, over real HTTP.

  fault_e2e.py --serve PATH/winnow-serve --prune PATH/winnow-prune [--shims DIR] [--only NAME]
"""
import concurrent.futures
import contextlib
import fcntl
import http.client
import json
import mmap
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import make_tiny_model  # noqa: E402
from server_process import (FILES, GENEROUS, HERE, RUN, NotTried, TroubledServer, check, log, multipart, read_file, run_tests,  # noqa: E402
                            same, wait_for)

KEYS = {"inference": "inference-key-0001", "metrics": "metrics-key-00002"}
ENVIRONMENT = {f"WINNOW_{k.upper()}_KEY": v for k, v in KEYS.items()}


# ---- images decoded in a helper process ----


def children(pid):
    out = []
    for task in os.listdir(f"/proc/{pid}/task"):
        out += read_file("/proc", str(pid), "task", task, "children").split()
    return [int(x) for x in out]


def threads(pid):
    return [read_file("/proc", str(pid), "task", task, "comm").decode().strip() for task in os.listdir(f"/proc/{pid}/task")]


def isolated_server(*settings, timeout="1h", **kwargs):
    """One whose images are decoded in helpers."""
    try:
        return TroubledServer(*GENEROUS, "decode.isolation=process", f"decode.timeout={timeout}", *settings, **kwargs)
    except AssertionError as e:
        if "without libseccomp" in str(e):
            raise NotTried("built without libseccomp") from None
        raise


def test_isolated_decoder():
    with TroubledServer(*GENEROUS) as server:
        reference = [json.loads(server.ask_audit(t)[2])["labels"] for t in ("x", "y")]
    with isolated_server(env=ENVIRONMENT) as server:
        key, helpers = KEYS["inference"], children(server.process.pid)
        same(len(helpers), 2, "helpers: one for audits, one for trials")
        status = read_file("/proc", str(helpers[0]), "status").decode()
        same(re.search(r"NoNewPrivs:\t(\d)", status).group(1), "1", "NoNewPrivs")
        same(re.search(r"Seccomp:\t(\d)", status).group(1), "2" if RUN.slow == 1 else "0", "Seccomp")
        if os.access(f"/proc/{helpers[0]}/environ", os.R_OK):
            check(KEYS["inference"].encode() not in read_file("/proc", str(helpers[0]), "environ"), "the helper was handed a key")
        same([json.loads(server.ask_audit(t, key=key)[2])["labels"] for t in ("x", "y")], reference, "labels")
        body, kind = multipart([("image", read_file(FILES, "truncated.jpg")), ("text", "x")])
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
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
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
    with isolated_server(timeout="400ms") as server:
        for h in children(server.process.pid):
            os.kill(h, signal.SIGSTOP)
        status, _, body = server.ask_audit()
        same(status, 422, body)
        check("decoding took longer than 0.4 s" in json.loads(body)["detail"], body)
        # On a machine that is busy enough the next one may take as long, and is replaced as well.
        wait_for(lambda: server.ask_audit()[0] == 200, what="an answer from another helper")


def test_a_stuck_decoder_makes_nobody_late():
    deadline_ms = 200 * RUN.slow

    def ask(server, ms):
        start = time.monotonic()
        body, kind = multipart([("image", read_file(FILES, "good.png")), ("text", "x")])
        status, _, body = server.ask("POST", "/v1/audit", body=body, headers={"Content-Type": kind, "X-Deadline-Ms": str(ms)})
        return status, json.loads(body), time.monotonic() - start
    with isolated_server("inference.decode_threads=1") as server, concurrent.futures.ThreadPoolExecutor(6) as pool:
        same(server.ask_audit()[0], 200, "warm")
        for h in children(server.pid):
            os.kill(h, signal.SIGSTOP)
        stuck = pool.submit(ask, server, 50000)
        wait_for(lambda: server.metrics()["winnow_requests_in_flight"] == 1, what="a decode that is stuck")
        time.sleep(0.2)  # it is taken out of the queue
        behind = [b.result() for b in [pool.submit(ask, server, deadline_ms) for _ in range(5)]]
        check(not stuck.done(), "the stuck one ended first")
        same([b[0] for b in behind], [504] * 5, "those behind it")
        reasons = [b[1]["reason"] for b in behind]
        check("deadline_exceeded" in reasons and set(reasons) <= {"deadline_exceeded", "deadline_unreachable"}, reasons)
        # Generously: by its own clock none of them waited for anything but its deadline.
        check(max(b[2] for b in behind) < 10 * deadline_ms / 1000, [b[2] for b in behind])
        same(server.metrics()["winnow_queue_depth"], 1, "the stuck one has the only place")
        for h in children(server.pid):
            os.kill(h, signal.SIGCONT)
        same(stuck.result()[0], 200, "the stuck one, when its decoder went on")
        # A decode ends at its own request's deadline; the next request finds another helper.
        for h in children(server.pid):
            os.kill(h, signal.SIGSTOP)
        status, problem, _ = ask(server, deadline_ms)
        same((status, problem["reason"]), (504, "deadline_exceeded"), problem)
        check("passed during decoding" in problem["detail"], problem)
        same([server.ask_audit()[0] for _ in range(3)], [200] * 3, "afterwards")
        m = server.settled_metrics()
        same(m["winnow_queue_depth"], 0, "nothing waits")
        same(m["winnow_decoder_restarts_total"], 1, "helpers replaced")


def kill_children(pid):
    """Whoever of them is still there; they are replaced while this looks."""
    killed = 0
    for child in children(pid):
        try:
            os.kill(child, signal.SIGKILL)
            killed += 1
        except ProcessLookupError:
            pass
    return killed


def test_decoders_killed_again_and_again():
    rounds, moments = 40, random.Random(0)
    with isolated_server("inference.decode_threads=2") as server:
        expected = json.loads(server.ask_audit()[2])["labels"]
        answers, killed, over = [], 0, False

        def ask():
            while not over:
                answers.append(server.ask_audit())
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            asking = [pool.submit(ask) for _ in range(3)]
            for i in range(rounds):  # at any moment: idle, with an image in hand, just started
                time.sleep(moments.uniform(0, 0.1 * RUN.slow))
                killed += kill_children(server.pid)
                if i == rounds // 2:
                    descriptors = server.open_descriptors()
            over = True
            for a in asking:
                a.result()
        # 422: killed with this image in its hands; 500: killed while it was being started for it.
        refusals = {422: "the decoder crashed on this image", 500: "the image decoder is not available"}
        for status, _, body in answers:
            check(json.loads(body)["labels"] == expected if status == 200 else
                  refusals.get(status, "another answer") in json.loads(body)["detail"], (status, body))
        statuses = [a[0] for a in answers]
        log(f"     {killed} killed, {statuses.count(200)} answered, {statuses.count(422)} and {statuses.count(500)} not")
        check(killed >= rounds and statuses.count(200) > rounds, statuses)
        same([server.ask_audit()[0] for _ in range(4)], [200] * 4, "afterwards")
        check(server.settled_metrics()["winnow_decoder_restarts_total"] >= rounds // 2, "restarts")
        # Helpers come and go, and so do connections: a few more or less, not one for each kill.
        check(server.open_descriptors() <= descriptors + 8, f"{server.open_descriptors()} descriptors, {descriptors} half-way")


# ---- what goes wrong around the server ----


def test_full_disk_costs_log_lines_only():
    with TroubledServer(*GENEROUS, "log.access=/dev/full") as server:
        same([server.ask_audit()[0] for _ in range(3)], [200] * 3, "audits")
        wait_for(lambda: server.metrics()["winnow_access_log_dropped_total"] >= 3, what="lines counted as lost")
        same(server.ask("GET", "/v2/health/ready")[0], 200, "ready")
    # The server's own messages too: it must start, serve and stop without them.
    with open("/dev/full", "wb") as full, logging_to(full) as (process, live):
        check(live(), "not live")
        process.send_signal(signal.SIGTERM)
        same(process.wait(timeout=60 * RUN.slow), 0, "exit code")


@contextlib.contextmanager
def logging_to(stderr):
    """A server that is live and whose messages go there: the process, and a function that asks whether it is live."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    process = subprocess.Popen([RUN.serve, "--registry", os.path.join(RUN.work, "registry"), "--set", "model.name=tiny",
                                "--listen", f"127.0.0.1:{port}"], stdout=subprocess.DEVNULL, stderr=stderr)

    def live():
        try:
            c = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            c.request("GET", "/v2/health/live")
            return c.getresponse().status == 200
        except OSError:
            return False
    try:
        wait_for(live, what="a live server")
        yield process, live
    finally:
        process.kill()
        process.wait()


def test_messages_that_nobody_reads_cost_lines_only():
    out, into = os.pipe()
    fcntl.fcntl(into, 1031, 4096)  # F_SETPIPE_SZ, which the fcntl of Python 3.9 does not name
    reader = os.fdopen(out, "rb")
    with logging_to(into) as (process, live):
        def reload(times):
            for _ in range(times):
                process.send_signal(signal.SIGHUP)
                time.sleep(0.005)  # signals that come together are one
        reload(300)  # each is told in a line of 80 bytes
        check(live(), "a full pipe holds the server up")
        text = os.read(out, 65536).decode()

        def told():
            nonlocal text
            reload(1)
            text += os.read(out, 65536).decode()
            return "could not be written" in text
        wait_for(told, what="how many lines are lost")
        check(int(re.search(r"(\d+) lines before this one could not", text).group(1)) > 0, text)
        check(all(re.match(r"\S+ (INFO|WARNING) ", line) for line in text.splitlines()), f"broken lines: {text}")
        reload(300)
        process.send_signal(signal.SIGTERM)
        same(process.wait(timeout=60 * RUN.slow), 0, "exit code")
    os.close(into)
    reader.close()


def refused_start(message, *arguments, code=1, **kwargs):
    out = subprocess.run([RUN.serve, "--listen", "127.0.0.1:0", "--set", "model.name=tiny", *arguments], capture_output=True,
                         timeout=60 * RUN.slow, **kwargs)
    text = out.stderr.decode()
    same(out.returncode, code, text)
    check(message in text and text.count("\n") == 1, text)


def test_unreadable_registry():
    root = os.path.join(RUN.work, "unreadable")
    version = os.path.join(root, "tiny", "1")
    make_tiny_model.make(version, 0)
    weights = os.path.join(version, "model.safetensors")
    refused_start("cannot open", "--registry", weights, code=2)  # a file
    with TroubledServer(*GENEROUS, extra=("--registry", root)) as server:
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
        refused_start("unreadable/tiny/1: cannot open the directory: Permission denied", "--registry", root)
    elif subprocess.run([RUN.serve, "--version"], user=65534, group=65534, extra_groups=[], capture_output=True).returncode == 0:
        os.chmod(RUN.work, 0o755)
        refused_start("unreadable/tiny/1: cannot open the directory: Permission denied", "--registry", root, user=65534, group=65534,
                      extra_groups=[])
    os.chmod(version, 0o755)


def test_a_start_that_fails_has_answered_nobody():
    shim = os.path.join(RUN.shims, "libshim_binding.so")
    if RUN.slow > 1 or not os.path.exists(shim):
        return log("     no shim: not tried")
    hold = os.path.join(RUN.work, "hold_bind")
    with open(hold, "wb"), socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as free:
        port, admin_port = free.getsockname()[1], taken.getsockname()[1]
        free.close()
        command = [RUN.serve, "--listen", f"127.0.0.1:{port}", "--registry", os.path.join(RUN.work, "registry")]
        for setting in ("model.name=tiny", "admin.address=127.0.0.1", f"admin.port={admin_port}"):
            command += ["--set", setting]
        environment = dict(os.environ, LD_PRELOAD=shim, SHIM_HOLD=hold, SHIM_PORT=str(admin_port))
        process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment)
        with socket.socket() as client:
            wait_for(lambda: client.connect_ex(("127.0.0.1", port)) == 0, what="the main port")
            client.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            client.settimeout(0.5)
            answer = b""
            with contextlib.suppress(socket.timeout):
                answer = client.recv(100)
            os.unlink(hold)
            text = process.communicate(timeout=60)[1].decode()
    same(answer, b"", "an answer of a server that has no admin port")
    same(process.returncode, 1, text)
    check(f"cannot listen on 127.0.0.1 port {admin_port}" in text, text)


def test_a_start_that_does_not_end_can_be_stopped():
    shim = os.path.join(RUN.shims, "libshim_reading.so")
    if RUN.slow > 1 or not os.path.exists(shim):
        return log("     no shim: not tried")
    hold = os.path.join(RUN.work, "hold_start")
    command = [RUN.serve, "--listen", "127.0.0.1:0", "--registry", os.path.join(RUN.work, "registry"), "--set", "model.name=tiny"]
    for number in (signal.SIGTERM, signal.SIGINT):
        with open(hold, "wb"):
            pass
        process = subprocess.Popen(command, stderr=subprocess.PIPE, env=dict(os.environ, LD_PRELOAD=shim, SHIM_HOLD=hold, SHIM_FILE="config.json"))
        try:
            wait_for(lambda: "start guard" in threads(process.pid), what="a start")
            process.send_signal(number)
            text = process.communicate(timeout=60)[1].decode()
        finally:
            os.unlink(hold)
            process.kill()
        same(process.returncode, 0, text)
        check("before the server was ready" in text and "listening" not in text, text)


def test_wall_clock_jumps_change_nothing():
    # By inspection: the wall clock is for stamps in logs and for the start of the process, and nothing waits by it.
    server_dir = os.path.join(HERE, "..", "..", "server")
    for name in sorted(os.listdir(server_dir)):
        text = read_file(server_dir, name).decode()
        uses = re.findall(r"CLOCK_REALTIME|gettimeofday|\btime\(NULL\)", text)
        check(not uses or (name in ("log.c", "metrics.c") and len(uses) == 1), f"{name}: {uses}")
        if "pthread_cond_timedwait" in text and name != "http_watch.c":  # which waits on what http_listen.c made
            check("cond_init_monotonic" in text, name + " waits by the wall clock")
    shim = os.path.join(RUN.shims, "libshim_clock.so")
    if RUN.slow > 1 or not os.path.exists(shim):
        return log("     no shim: not tried")
    with TroubledServer(*GENEROUS, "cache.bytes=64KiB", "http.idle_timeout=30s", "rates.inference=1000",
                        env={"LD_PRELOAD": shim}) as server:
        for i in range(12):
            status, _, body = server.ask_audit(str(i % 6))
            same(status, 200, body)
            check(0 < json.loads(body)["timing_ms"]["total"] < 50000, body)
        m = server.settled_metrics()
        same(m["winnow_cache_hits_total"], 6, "answers from the cache, whatever the date")
        check(m["winnow_request_duration_seconds_sum"] < 600, "durations")
        stamps = {line["time"][:4] for line in server.access_log()}
        check(len(stamps) > 1, f"the shim did not work: {stamps}")


def test_a_load_that_does_not_end_does_not_hold_up_the_stop():
    shim = os.path.join(RUN.shims, "libshim_reading.so")
    if RUN.slow > 1 or not os.path.exists(shim):
        return log("     no shim: not tried")
    hold, registry = os.path.join(RUN.work, "hold"), os.path.join(RUN.work, "two")
    for version in (1, 2):
        make_tiny_model.make(os.path.join(registry, "tiny", str(version)), version)

    def state():
        versions = json.loads(server.request("POST", "/v2/repository/index", b"{}")[2])
        return next(v["state"] for v in versions if v["version"] == "2")

    def load():
        try:
            server.request("POST", "/v2/repository/models/tiny/load", b'{"parameters": {"version": "2"}}')
        except (OSError, http.client.HTTPException):
            pass  # the connection is closed: it is not told otherwise
    with TroubledServer(*GENEROUS, "model.version=1", "drain.timeout=100ms", registry=registry,
                        env={"LD_PRELOAD": shim, "SHIM_HOLD": hold}) as server:
        with open(hold, "wb"):
            pass
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            pool.submit(load)
            wait_for(lambda: state() == "LOADING", what="a load")
            same(server.ask_audit("meanwhile")[0], 200, "an audit beside it")
            server.process.send_signal(signal.SIGTERM)
            try:
                same(server.process.wait(timeout=30), 0, "exit code")
            finally:
                os.unlink(hold)
        check("is left undone" in server.errors(), server.errors())
        same([x["status"] for x in server.access_log() if x["path"] == "/v1/audit"], [200], "access log")


class Allocations:
    """shim_allocation.c's file of three numbers."""

    def __init__(self):
        self.path = os.path.join(RUN.work, "allocations")
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
    shim = os.path.join(RUN.shims, "libshim_allocation.so")
    if RUN.slow > 1 or not os.path.exists(shim):
        return log("     no shim: not tried")
    allocations = Allocations()
    environment = {"LD_PRELOAD": shim, "SHIM_CONTROL": allocations.path}
    # Loading: the server starts, or says one line and ends. Some of all the places, the early ones more densely.
    arguments = ["--registry", os.path.join(RUN.work, "registry"), "--set", "model.name=tiny", "--listen", "127.0.0.1:0"]
    allocations.arm(0)
    with TroubledServer(*GENEROUS, env=environment):
        total = allocations.calls
    check(total > 100, f"only {total} allocations were seen")
    places = sorted({*range(1, 12), *(int(total ** (i / 24)) for i in range(9, 25)), *(total * i // 24 for i in range(1, 24))})
    ended = 0
    for k in places:
        allocations.arm(k)
        process = subprocess.Popen([RUN.serve, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
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
    with TroubledServer(*GENEROUS, "cache.bytes=64KiB", env=environment) as server:
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
            check(status in (200, 429, 503, "closed"), f"allocation {k} failed: {status}")
            check(server.process.poll() is None, f"allocation {k} failed: the server is gone: {server.errors()}")
            check(k < 1000)
        allocations.arm(0)
        log(f"     {len(places)} of {total} allocations while loading; {k} while answering: {statuses}")
        check(k > 5 and sum(v for s, v in statuses.items() if s != 200) >= 3, statuses)
        same(server.ask_audit("afterwards")[0], 200, "afterwards")
        # Nobody hung up: whoever saw the connection closed is counted as what it was, and every audit has a line or a lost one.
        metrics = server.settled_metrics()
        check("closed" in statuses, statuses)
        same(metrics['winnow_requests_total{code="503"}'], statuses.get(503, 0) + statuses["closed"], "without memory")
        check('winnow_requests_total{code="499"}' not in metrics, "a client is said to have gone")
        same(metrics['winnow_sheds_total{reason="out_of_memory"}'], statuses.get(503, 0) + statuses["closed"], "audits among them")
        wait_for(lambda: sum(x["path"] == "/v1/audit" for x in server.access_log()) + metrics["winnow_access_log_dropped_total"]
                 == sum(statuses.values()) + 2, what="a line of every audit, written or lost")
        allocations.arm(3)
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "reloaded" in server.errors(), what="a reload, or why there was none")
        allocations.arm(0)
        same(server.settled_metrics()["winnow_requests_in_flight"], 0, "nothing is left behind")


def prepare():
    make_tiny_model.make(os.path.join(RUN.work, "registry", "tiny", "2"), 0)


if __name__ == "__main__":
    run_tests(globals(), prepare)
