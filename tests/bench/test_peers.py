#!/usr/bin/env python3
"""tests/bench/peers with the real winnow-prune on a golden checkpoint, and peers that only claim times (fake_peers.py).

Usage: test_peers.py WINNOW_PRUNE. Shown: the table's ratios are those of the times; winnow's logits are compared with transformers';
what is made is kept, and made anew when what it was made from changed; a peer that crashes, cannot load or answers nonsense is named in
one line and the others go on; a Ctrl-C leaves no process; what cannot be is refused in one line."""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, HERE)
from peers_lib import contenders, session, table  # noqa: E402

SCRIPT = os.path.join(HERE, "peers")
FAKE = f"{sys.executable} {HERE}/fake_peers.py"
PRUNE = os.path.abspath(sys.argv.pop(1)) if len(sys.argv) > 1 else "winnow-prune"
TIMES = {"int8.onnx": 40, "int8-pc.onnx": 30, "int8-qdq.onnx": 50, "f32.onnx": 200, "bf16": 120, "f32": 300, "int8": 80}
work = None


def setUpModule():
    global work
    work = tempfile.mkdtemp(prefix="peers-")


def tearDownModule():
    shutil.rmtree(work)


def words(place, *more):
    return [SCRIPT, "--python", FAKE, "--winnow-prune", PRUNE, "--work", f"{work}/{place}", "--scale", "tiny", "--tokens", "1",
            "--threads", "1", "--rounds", "2", "--runs", "3", *more]


def environment(trouble=None, times=None):
    return {**os.environ, "FAKE_TIMES": json.dumps(times or TIMES), "FAKE_TROUBLE": json.dumps(trouble or {}), "FAKE_PIDS": f"{work}/pids"}


def compare(place, *more, **faked):
    os.makedirs(f"{work}/pids", exist_ok=True)
    done = subprocess.run(words(place, "--json", f"{work}/out.json", *more), capture_output=True, text=True, env=environment(**faked))
    report = {}
    if os.path.exists(f"{work}/out.json"):
        with open(f"{work}/out.json", encoding="utf-8") as f:
            report = json.load(f)
        os.unlink(f"{work}/out.json")
    return done, report, {v["name"]: v for v in report.get("variants", [])}


def rows(text):
    """The table's cells, by the variant's title."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")]
    return {cells[0]: dict(zip(lines[0], cells)) for cells in lines[1:]}, lines[0]


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_for(what, why, child, seconds=300):
    """child: that brings it about, unless it is None."""
    until = time.monotonic() + seconds
    while not what():
        if time.monotonic() > until or child and child.poll() is not None:
            raise AssertionError(f"waited for {why} in vain")
        time.sleep(0.05)


class Comparison(unittest.TestCase):
    def start(self, place, *more, **faked):
        """A driver that the test stops, or that ends with the test."""
        child = subprocess.Popen(words(place, *more), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(**faked))
        self.addCleanup(child.kill)
        return child

    def test_table(self):
        done, report, variants = compare("table")
        self.assertEqual(done.returncode, 0, done.stderr)
        shown, heads = rows(done.stdout)
        self.assertEqual(heads[8:], ["× ONNX Runtime int8 (ort-int8-pc)", "× ONNX Runtime f32", "× PyTorch bf16"])
        self.assertEqual(len(shown), 10)
        cells = shown["ONNX Runtime int8, dynamic (faked)"]
        self.assertEqual([cells[h] for h in heads[1:4]], ["40.00", "40.00", "40.00"])
        self.assertEqual([cells[h] for h in heads[5:]], ["–", "0.98765", "0.12 GB", "0.75 (0.75–0.75)", "5.00 (5.00–5.00)",
                                                        "3.00 (3.00–3.00)"])
        self.assertEqual(shown["ONNX Runtime int8, dynamic, per channel (faked)"][heads[8]], "1")
        for name in ("winnow-f32", "winnow-bf16", "winnow-int8"):
            self.check_winnow(report, variants[name], shown[variants[name]["title"]], heads)
        self.assertIn("| winnow", done.stdout)
        self.assertIn("torch-bf16: took 250 ms of processor time between two turns", done.stdout)
        self.assertRegex(done.stdout, r"2 rounds, 3 requests a turn\.\n\d{4}-\d\d-\d\d, .* oneDNN .*, ort 1.2, torch 1.2")

    def check_winnow(self, report, v, cells, heads):
        """Measured, so only as good as its own turns say."""
        medians = [turn["median_ms"] for turn in v["turns"]]
        self.assertEqual([turn["round"] for turn in v["turns"]], [1, 2])
        self.assertAlmostEqual(v["median_ms"], sum(medians) / 2)
        for name, times in (("ort-int8-pc", 30), ("ort-f32", 200), ("torch-bf16", 120)):
            ratio = v["times_as_fast"][name]
            self.assertAlmostEqual(ratio["ratio"], times / v["median_ms"])
            self.assertAlmostEqual(ratio["least"], times / max(medians))
            self.assertAlmostEqual(ratio["most"], times / min(medians))
        self.assertIn(f"{v['times_as_fast']['ort-f32']['ratio']:.2f} (", cells[heads[9]])
        self.assertAlmostEqual(v["gflops"], 1e-6 * report["flops"] / v["median_ms"])
        peak = sum(turn["peak_gflops"] for turn in v["turns"]) / 2
        self.assertAlmostEqual(v["percent_of_peak"], 100 * v["gflops"] / peak)
        self.assertGreater(v["peak_rss_bytes"], 1e6)
        if v["name"] == "winnow-f32":
            self.assertGreater(v["cosine"], 0.9999999)      # with transformers' own logits
            self.assertEqual(cells["cosine"], "1.00000")
        elif v["cosine"] is None:                           # forward may not have the precision yet
            self.assertIn("no cosine: winnow-prune forward", v["remarks"][0])

    def test_kept(self):
        only = ("--only", "ort-int8", "--rounds", "1")
        made = "exporting to ONNX"
        self.assertIn(made, compare("kept", *only)[0].stderr)
        again = compare("kept", *only)[0]
        self.assertEqual((again.returncode, "making" in again.stderr, made in again.stderr), (0, False, False), again.stderr)
        config = f"{work}/kept/tiny/model/config.json"
        os.utime(config, (1, 1))
        changed = compare("kept", *only)[0]
        self.assertEqual((changed.returncode, "making" in changed.stderr, made in changed.stderr), (0, False, True), changed.stderr)

    def test_seen_elsewhere(self):
        """The peers' Python sees the directory by another name."""
        os.symlink(f"{work}/here", f"{work}/there")
        done, _, variants = compare("here", "--work-inside", f"{work}/there", "--only", "ort-f32,winnow-f32")
        self.assertEqual((done.returncode, sorted(variants)), (0, ["ort-f32", "winnow-f32"]), done.stderr)
        lost = compare("lost", "--work-inside", f"{work}/here", "--only", "ort-f32")[0]
        self.assertEqual((lost.returncode, lost.stdout), (1, ""))
        self.assertRegex(lost.stderr.splitlines()[-1], "--work-inside .* the same directory")

    def test_troubles(self):
        """Each is named in one line; the others are timed."""
        trouble = {"int8.onnx": "turn 2", "int8-pc.onnx": "load", "int8-qdq.onnx": "make", "f32": "import", "bf16": "not a number",
                   "int8": "short"}
        done, _, variants = compare("troubles", trouble=trouble)
        self.assertEqual(done.returncode, 1, done.stderr)
        for line in (r"ort-int8: killed by SIGABRT: out of luck \(.*/ort-int8.log\)",
                     r"ort-int8-pc: ended with code 1: MemoryError: no room \(.*\)",
                     r"int8-qdq.onnx: ended with code 1: that model \(.*\)",
                     "torch-bf16: found 'oops', expected a line of JSON",
                     "torch-int8: found 2 times, expected 3"):
            self.assertEqual(len(re.findall(f"^FAILED {line}$", done.stderr, re.M)), 1, f"{line}\n{done.stderr}")
            self.assertRegex(done.stdout, f"(?m)^- failed: {line}$")
        self.assertRegex(done.stdout, "(?m)^- torch-f32 is not to be had here: no module for f32$")
        self.assertEqual({name for name, v in variants.items() if "median_ms" in v},
                         {"winnow-f32", "winnow-bf16", "winnow-int8", "ort-f32"})
        self.assertEqual(list(variants["winnow-int8"]["times_as_fast"]), ["ort-f32"])
        self.assertEqual(len(variants["ort-int8"]["turns"]), 1)
        self.assertFalse([pid for pid in os.listdir(f"{work}/pids") if alive(pid)])

    def test_stopped(self):
        """Ctrl-C while one works and the others wait for their turn."""
        for number in (signal.SIGINT, signal.SIGTERM):
            shutil.rmtree(f"{work}/pids", ignore_errors=True)
            os.makedirs(f"{work}/pids")
            child = self.start("stopped", "--only", "ort-f32,ort-int8,torch-f32", trouble={"int8.onnx": "hang"})
            wait_for(lambda: len(os.listdir(f"{work}/pids")) == 3, "three workers", child)
            time.sleep(0.5)
            pids = os.listdir(f"{work}/pids")
            self.assertTrue(all(map(alive, pids)))
            child.send_signal(number)
            out, said = child.communicate(timeout=60)
            self.assertEqual((child.returncode, out), (130, ""), said)
            self.assertEqual(said.splitlines()[-1], "peers: stopped; what was made is kept")
            self.assertFalse([pid for pid in pids if alive(pid)])

    def test_killed(self):
        """kill -9 of the driver: the workers' input ends."""
        shutil.rmtree(f"{work}/pids", ignore_errors=True)
        os.makedirs(f"{work}/pids")
        child = self.start("killed", "--only", "ort-f32,torch-f32,winnow-f32", "--rounds", "1000")
        wait_for(lambda: len(os.listdir(f"{work}/pids")) == 2, "two workers", child)
        child.kill()
        child.communicate()
        wait_for(lambda: not any(map(alive, os.listdir(f"{work}/pids"))), "the workers' end", None)

    def test_refused(self):
        def refuse(code, expected, *arguments):
            done = subprocess.run([SCRIPT, *arguments], capture_output=True, text=True)
            self.assertEqual((done.returncode, done.stdout, len(done.stderr.splitlines())), (code, "", 1), done.stderr)
            self.assertIn(expected, done.stderr)
        good = words("never")[1:]
        refuse(2, "found 'ort', expected some of winnow-int8,", *good, "--only", "ort")
        refuse(2, "no such program", *good, "--winnow-prune", f"{work}/no")
        refuse(2, "from 1 to 1000, found '0'", *good, "--rounds", "0")
        refuse(2, "expected an absolute path", *good, "--work-inside", "tmp")
        refuse(2, "its directory does not exist", *good, "--json", f"{work}/no/x.json")
        refuse(2, "invalid choice: 'huge'", *good, "--scale", "huge")
        self.assertFalse(os.path.exists(f"{work}/never"))
        done = subprocess.run([SCRIPT, *good, "--python", f"{work}/no-python"], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertEqual(done.stderr.splitlines()[-1], f"peers: model: {work}/no-python: No such file or directory")

    def test_two_at_once(self):
        child = self.start("twice", "--only", "ort-f32", trouble={"f32.onnx": "hang"})
        wait_for(lambda: os.path.exists(f"{work}/twice/tiny/logs/ort-f32.log"), "the first one's worker", child)
        second = compare("twice")[0]
        child.send_signal(signal.SIGINT)
        child.communicate()
        self.assertEqual((second.returncode, second.stderr.splitlines()[-1]), (1, f"peers: another comparison works in {work}/twice"))

    def test_help_and_list(self):
        self.assertIn("examples:", subprocess.run([SCRIPT, "--help"], capture_output=True, text=True, check=True).stdout)
        self.assertEqual(subprocess.run([SCRIPT, "--list"], capture_output=True, text=True, check=True).stdout.splitlines()[0],
                         "winnow-int8    winnow int8")


class Parts(unittest.TestCase):
    def test_order(self):
        """Everybody is first once, and nobody always behind the same one."""
        made = [session.order(list("abcd"), r) for r in range(4)]
        self.assertEqual(["".join(order) for order in made], ["abcd", "adcb", "cdab", "cbad"])

    def test_p99(self):
        self.assertEqual(contenders.p99([3.0]), 3.0)
        self.assertEqual(contenders.p99([float(i) for i in range(50)]), 49)
        self.assertEqual(contenders.p99([float(i) for i in range(200)]), 197)

    def test_ratio_over_rounds(self):
        def made(*medians):
            c = contenders.Contender(table.variants.VARIANTS[0])
            c.turns = [{"round": i + 1, "median_ms": m, "p99_ms": m, "min_ms": m} for i, m in enumerate(medians)]
            return c
        self.assertEqual(table.times_as_fast(made(10, 20, 40), made(20, 60, 200)), {"ratio": 3, "least": 2, "most": 5})

    def test_short_memory(self):
        """A worker stays only when another one fits beside it."""
        class Place:
            def weight_bytes(self):
                return 1e9

        class Peer(contenders.Peer):
            def start(self):
                self.worker = self

            def end(self):
                self.worker = None
        available = contenders.available_bytes
        try:
            for before, behind, expected in ((9e9, 8e9, True), (9e9, 2e9, False)):
                left = [behind, before]
                contenders.available_bytes = left.pop
                peer = Peer(table.variants.VARIANTS[1], Place(), 1)
                peer.begin()
                self.assertEqual((peer.resident, peer.worker is not None), (expected, expected))
            contenders.available_bytes = lambda: 3e9
            with self.assertRaisesRegex(contenders.child.ChildError, "ort-int8: needs about 3.6 GB of memory, 3.0 GB are available"):
                Peer(table.variants.VARIANTS[1], Place(), 1).begin()
        finally:
            contenders.available_bytes = available


if __name__ == "__main__":
    unittest.main(verbosity=2)
