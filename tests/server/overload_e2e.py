#!/usr/bin/env python3
"""winnow-serve with clients that are slow, vanish or are too many, and how it ends. Standard library only, over real HTTP.

  overload_e2e.py --serve PATH/winnow-serve --prune PATH/winnow-prune [--only NAME]
"""
import concurrent.futures
import json
import os
import select
import signal
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import make_tiny_model  # noqa: E402
from server_process import (GENEROUS, RUN, Server, audit_bytes, check, good_image, hang_up, log, parallel,  # noqa: E402
                            read_file, run_tests, same, wait_for)


# ---- slow and vanishing clients ----


def test_slow_clients():
    with Server(*GENEROUS, "http.receive_timeout=1s", "http.idle_timeout=1s") as server:
        head, body = audit_bytes(good_image(), "x", ["X-Request-Id: slow"])
        # A body that drips steadily: never idle, never done.
        s = server.connect()
        s.sendall(head)
        start, answer = time.monotonic(), b""
        while not select.select([s], [], [], 0.1)[0]:
            check(time.monotonic() - start < 20 * RUN.slow, "the dripping body was never refused")
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
                check(time.monotonic() - start < 20 * RUN.slow, "dripping headers were never cut off")
                if select.select([s], [], [], 0.1)[0]:
                    if s.recv(4096) == b"":
                        break
        except (BrokenPipeError, ConnectionResetError):
            pass
        s.close()
        # Nothing at all.
        s = server.connect()
        s.settimeout(20 * RUN.slow)
        same(s.recv(1), b"", "an idle connection")
        s.close()
        # Meanwhile and afterwards the others are served.
        same(server.audit(good_image())[0], 200, "a good request")
        wait_for(lambda: server.metrics()["winnow_connections"] <= 1, what="connections closed")


def test_disconnects_in_every_phase():
    head, body = audit_bytes(good_image(), "x")
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
    return Server(*settings, model_dir=os.path.join(RUN.work, "slow"))


def test_hung_up_client_costs_no_inference():
    with slow_server(*GENEROUS, "inference.queue_capacity=64") as server:
        head, body = audit_bytes(good_image(), "x")
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
    with slow_server(*GENEROUS, "inference.mode=throughput", "inference.instances=2", "inference.decode_threads=2") as server:
        same({a[0] for a in parallel(server, 8)}, {200}, "statuses")


# ---- the end ----


def begun(server):
    m = server.metrics()
    return m["winnow_requests_in_flight"] + m["winnow_request_duration_seconds_count"]


def wait_until_refusing(server):
    """Not ready comes first; whoever gets in between the two is accepted and waited for."""
    wait_for(lambda: "draining:" in server.errors(), what="a server that refuses")
    same(server.request("GET", "/v2/health/ready")[0], 503, "ready")


def test_sigterm_drains():
    with slow_server(*GENEROUS, "inference.queue_capacity=64") as server:
        results = []
        thread = threading.Thread(target=lambda: results.extend(parallel(server, 40)))
        thread.start()
        wait_for(lambda: server.metrics()["winnow_requests_in_flight"] >= 6, what="requests in flight")
        # A client that is still sending keeps the server from leaving, so that what a new one is told can be seen.
        head, body = audit_bytes(good_image(), "x")
        s = server.connect()
        s.sendall(head + body[:50])
        wait_for(lambda: begun(server) >= 41, what="all forty and the slow one have begun")
        server.process.send_signal(signal.SIGTERM)
        wait_until_refusing(server)
        same(server.request("GET", "/v2/health/live")[0], 200, "live")
        status, headers, text = server.audit(good_image())
        same((status, json.loads(text)["reason"]), (503, "draining"), "a new audit")
        check("retry-after" in headers, headers)
        s.sendall(body[50:])
        check(s.recv(100).startswith(b"HTTP/1.1 200 "), "the one that was still sending")
        thread.join()
        same({r[0] for r in results}, {200}, "those in flight")
        same(server.process.wait(timeout=30 * RUN.slow), 0, "exit code")
        check("drained after" in server.errors(), server.errors())


def test_drain_is_bounded():
    with slow_server(*GENEROUS, "inference.queue_capacity=64", "drain.timeout=100ms") as server:
        results = []
        thread = threading.Thread(target=lambda: results.extend(parallel(server, 56)))
        thread.start()
        wait_for(lambda: server.metrics()["winnow_requests_in_flight"] >= 20, what="requests in flight")
        start = time.monotonic()
        server.process.send_signal(signal.SIGINT)
        same(server.process.wait(timeout=30 * RUN.slow), 0, "exit code")
        check(time.monotonic() - start < 10 * RUN.slow)
        thread.join()
        check({r[0] for r in results} <= {200, 503} and 503 in {r[0] for r in results}, [r[0] for r in results])


def test_refused_requests_do_not_hold_up_a_drain():
    # Nothing but what was accepted may keep this server from leaving.
    with slow_server(*GENEROUS, "drain.timeout=1h", "http.receive_timeout=1h", "http.idle_timeout=1h") as server:
        head, body = audit_bytes(good_image(), "x")
        accepted, refused = server.connect(), server.connect()
        accepted.sendall(head + body[:50])
        wait_for(lambda: server.metrics()["winnow_requests_in_flight"] == 1, what="the accepted one")
        server.process.send_signal(signal.SIGTERM)
        wait_until_refusing(server)
        refused_head, _ = audit_bytes(good_image(), "x", ["X-Request-Id: refused"])
        refused.sendall(refused_head + body[:50])
        time.sleep(0.2 * RUN.slow)
        accepted.sendall(body[50:])
        check(accepted.recv(100).startswith(b"HTTP/1.1 200 "), "the accepted one")
        same(server.process.wait(timeout=30 * RUN.slow), 0, "exit code")
        line = server.logged("refused")
        same((line["status"], line["reason"], line["bytes_out"]), (503, "draining", 0), "the one that never came")


def test_whatever_was_begun_is_answered():
    # No audit is in flight, so nothing is waited for but this.
    with Server() as server:
        s = server.connect()
        s.sendall(b"POST /v2/repository/index HTTP/1.1\r\nHost: x\r\nX-Request-Id: half\r\nContent-Length: 2\r\n\r\n{")
        time.sleep(0.2 * RUN.slow)
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: "draining: " in server.errors(), what="a drain")
        s.sendall(b"}")
        check(s.recv(100).startswith(b"HTTP/1.1 200 "), "the answer")
        same(server.process.wait(timeout=30 * RUN.slow), 0, "exit code")
        same(server.logged("half")["status"], 200, "access log")


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


def prepare():
    make_tiny_model.make(os.path.join(RUN.work, "registry", "tiny", "2"), seed=0)
    make_tiny_model.make(os.path.join(RUN.work, "slow"), seed=5, wide=16, name="slow")


if __name__ == "__main__":
    run_tests(globals(), prepare)
