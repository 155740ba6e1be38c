#!/usr/bin/env python3
"""scripts/ablation on the sample ads: a tiny teacher, two rows with two seeds, killed and started again.

Usage: test_ablation.py WINNOW_PRUNE. Shown: finished runs are not made again and an unfinished one goes on; all rows have the plan's
shape and steps; the table has the figures of the runs' final events, and `winnow-prune report` reads it; a failed row has its reason
in the table and the others go on; what cannot be is refused in one line. The rows themselves are checked as pure functions."""
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
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "scripts"))
from ablation_lib import plan, rows, table  # noqa: E402

SCRIPT = os.path.join(ROOT, "scripts", "ablation")
SAMPLES = os.path.join(ROOT, "tests", "samples")
PRUNE = os.path.abspath(sys.argv.pop(1)) if len(sys.argv) > 1 else "winnow-prune"

TEACHER = """
run_dir: {work}/teacher
data: {{dir: {samples}, cache: {work}/cache, cache_scale: 1}}
threads: 1
model:
  vision: {{hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 64}}
  qformer: {{hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 64}}
  text: {{hidden_size: 48, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 96}}
  image_size: 56
  num_query_tokens: 4
  vocab_size: 512
prompt: '内容：{{text}} 补充：{{assist}} 判定：'
labels:
  - compliant | 合规 | pass
  - weapons | 违禁品 | block
  - alcohol_tobacco | 烟酒违规 | block
  - gambling | 赌博 | block
  - medical_claim | 医疗违规 | block
  - false_claim | 虚假宣传 | block
  - mismatch | 图文不符 | review
  - clickbait | 诱导点击 | review
  - unreadable | 画质低劣 | review
audit: {{split: test, validation: '', steps: 100, batch_size: 16, warmup_steps: 10, learning_rate: 2e-3}}
augment: {{crop_scale_min: 1, crop_ratio_max: 1, flip: 0, brightness: 0, contrast: 0, saturation: 0, cutout: 0}}
export: {{dtype: f32}}
"""

STUDENT = """
run_dir: {work}/unused
teacher: {work}/teacher/export
data: {{dir: {samples}, split: test, samples: 40, recombined: 40, validation: '', test: test}}
threads: 1
target: {{kind: parameters, value: 45e3, request_tokens: 16}}
stages: [blocks+queries | steps 3, inner | iterations 2 | steps 4, hidden | iterations 2 | steps 3]
importance: {{batches: 1}}
distill: {{batch_size: 8, warmup_steps: 2, finish_steps: 40}}
eval: {{batch: 8, latency_runs: 0}}
checkpoint_every: 5
"""

STEPS = 3 + 2 * 4 + 2 * 3 + 40
work = None


def setUpModule():
    global work
    work = tempfile.mkdtemp(prefix="ablation-")
    for name, text in (("teacher.yaml", TEACHER), ("student.yaml", STUDENT)):
        with open(f"{work}/{name}", "w", encoding="utf-8") as f:
            f.write(text.format(work=work, samples=SAMPLES))
    subprocess.run([PRUNE, "train", "--config", f"{work}/teacher.yaml"], check=True, stderr=subprocess.DEVNULL)


def tearDownModule():
    shutil.rmtree(work)


def words(run, *more):
    return [SCRIPT, "--config", f"{work}/student.yaml", "--run", f"{work}/{run}", "--winnow-prune", PRUNE,
            "--cache", f"{work}/cache", "--jobs", "1", *more]


def ablate(run, *more):
    return subprocess.run(words(run, *more), capture_output=True, text=True, timeout=600)


def events(directory):
    with open(f"{directory}/log.jsonl", encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def wait_for(condition, what):
    until = time.monotonic() + 300
    while not condition():
        if time.monotonic() > until:
            raise AssertionError(f"waited in vain for {what}")
        time.sleep(0.02)


def steps_in(path):
    return read(path).count('"event":"step"') if os.path.exists(path) else 0


class Whole(unittest.TestCase):
    """One table, in the order of the methods' names: each goes on where the one before ended."""
    ROWS = ("--rows", "full,one-shot", "--seeds", "2")
    RUNS = [f"rows/{row}/seed-{seed}" for seed in (1, 2) for row in ("full", "one-shot")]

    def path(self, name):
        return f"{work}/table/{name}"

    def test_1_killed(self):
        """kill -9 of the script and of the program, in the second run of four."""
        child = subprocess.Popen(words("table", *self.ROWS), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        log = self.path(self.RUNS[1] + "/log.jsonl")
        wait_for(lambda: steps_in(log) > 5 or child.poll() is not None, "the second run")
        child.send_signal(signal.SIGKILL)
        child.stderr.close()
        child.wait()
        self.kill_program(self.RUNS[1])
        self.assertEqual(events(self.path(self.RUNS[0]))[-1]["event"], "final")
        self.assertFalse(os.path.exists(self.path(self.RUNS[2])), "the script was killed too late to show anything")
        Whole.unfinished = not any('"final"' in line for line in read(log).splitlines())

    def kill_program(self, run):
        """The one that holds the run's lock, if it still works."""
        inode = os.stat(self.path(run + "/lock")).st_ino
        for line in read("/proc/locks").splitlines():
            found = re.search(r"FLOCK\s+ADVISORY\s+WRITE (\d+) \S+:(\d+) ", line)
            if found and int(found.group(2)) == inode:
                os.kill(int(found.group(1)), signal.SIGKILL)

    def test_2_continued(self):
        before = os.stat(self.path(self.RUNS[0] + "/log.jsonl"))
        done = ablate("table", *self.ROWS)
        self.assertEqual(done.returncode, 0, done.stderr)
        after = os.stat(self.path(self.RUNS[0] + "/log.jsonl"))
        self.assertEqual((before.st_ino, before.st_mtime_ns), (after.st_ino, after.st_mtime_ns), "a finished run was made again")
        if Whole.unfinished:
            self.assertIn("resuming in iteration", read(self.path(self.RUNS[1] + "/output.txt")))
            self.assertIn(f"4 runs of {STEPS} steps: 1 finished, 3 to do", done.stderr)
        self.assertEqual(done.stdout, read(self.path("ablation.md")))

    def test_3_equal(self):
        """Every step once; the same shape and number of steps everywhere, but other ways there."""
        finals = [events(self.path(run))[-1] for run in self.RUNS]
        self.assertEqual(len({f["parameters"] for f in finals}), 1)
        for run in self.RUNS:
            self.assertEqual([e["step"] for e in events(self.path(run)) if e["event"] == "step"], list(range(1, STEPS + 1)), run)
        names = [[e["name"] for e in events(self.path(run)) if e["event"] == "iteration"] for run in self.RUNS[:2]]
        self.assertEqual(names, [["001-blocks-queries", "002-inner", "003-inner", "004-hidden", "005-hidden", "006-finish"],
                                 ["001-blocks-inner-hidden-queries", "002-finish"]])

    def test_4_table(self):
        made = json.loads(read(self.path("ablation.json")))["rows"]
        self.assertEqual([row["name"] for row in made], ["full method", "everything in one iteration"])
        for r, row in enumerate(made):
            for s, run in enumerate(row["runs"]):
                measured = events(self.path(self.RUNS[2 * s + r]))[-1]["eval"]
                self.assertEqual(run, {"seed": s + 1, **{k: measured[k] for k in ("accuracy", "macro_f1", "ece", "nll")}})
        self.assertEqual(len({run["nll"] for row in made for run in row["runs"]}), 4, "four different students")
        accuracies = [run["accuracy"] for run in made[0]["runs"]]
        line = next(line for line in read(self.path("ablation.md")).splitlines() if line.startswith("| full method | 2 | "))
        self.assertIn(f"| {50 * sum(accuracies):.2f} ± {100 * abs(accuracies[0] - accuracies[1]) / 2 ** 0.5:.2f} |", line)

    def test_5_report(self):
        shutil.copy(self.path("ablation.json"), self.path(self.RUNS[0]))
        subprocess.run([PRUNE, "report", "--run", self.path(self.RUNS[0]), "--out", f"{work}/page.html"], check=True,
                       stdout=subprocess.DEVNULL)
        page = read(f"{work}/page.html")
        self.assertIn("everything in one iteration", page)
        self.assertNotIn("has no ablation.json", page)

    def test_6_failed_row(self):
        """Own rows: one that the program refuses, one that would distil longer; a good one behind them is made all the same."""
        done = ablate("table", *self.ROWS[:3], "1", "--row", "broken", "loss.kl=-1", "--row", "longer", "distill.finish_steps=500",
                      "--row", "cool", "loss.temperature=1", "--jobs", "2")
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn(f"5 runs of {STEPS} steps: 2 finished, 3 to do", done.stderr)
        self.assertRegex(done.stdout, r"- broken seed 1: .*loss.kl: found .*-1")
        self.assertRegex(done.stdout, f"- longer seed 1: it distils for {STEPS + 460} steps, the other rows for {STEPS}")
        self.assertIn("| cool | 1 | ", done.stdout)
        self.assertNotIn("| broken", done.stdout)
        mended = ablate("table", *self.ROWS[:3], "1", "--row", "broken", "loss.kl=1.5")
        self.assertEqual(mended.returncode, 0, mended.stderr)
        self.assertIn("| broken | 1 | ", mended.stdout)
        log = self.path("rows/longer/seed-1/log.jsonl")
        self.assertFalse(os.path.exists(log) and '"final"' in read(log), "it was not stopped at once")

    def test_7_other_settings(self):
        done = ablate("table", *self.ROWS, "--set", "loss.kl=2")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("table/plan was made with other settings", done.stderr)

    def test_8_terminated(self):
        """SIGTERM: the programs at work save, and the script says how to go on."""
        child = subprocess.Popen(words("stopped", "--rows", "full,one-shot", "--seeds", "1", "--jobs", "2",
                                       "--set", "distill.finish_steps=100000"), stderr=subprocess.PIPE, text=True)
        logs = [f"{work}/stopped/{run}/log.jsonl" for run in self.RUNS[:2]]
        wait_for(lambda: min(map(steps_in, logs)) > 20 or child.poll() is not None, "two runs at once")
        child.terminate()
        said = child.communicate(timeout=300)[1]
        self.assertEqual(child.returncode, 130, said)
        self.assertIn("the same command continues", said)
        for run in self.RUNS[:2]:
            self.assertIn("stopped in 00", read(f"{work}/stopped/{run}/output.txt"))

    def test_9_orphan(self):
        """kill -9 of the script alone: its program goes on, and the next script waits for it."""
        one = ("--rows", "full", "--seeds", "1")
        child = subprocess.Popen(words("orphan", *one), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        log = f"{work}/orphan/rows/full/seed-1/log.jsonl"
        wait_for(lambda: steps_in(log) > 5 or child.poll() is not None, "the run")
        child.kill()
        child.wait()
        done = ablate("orphan", *one)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotIn("resuming", read(f"{work}/orphan/rows/full/seed-1/output.txt"))
        self.assertEqual(steps_in(log), STEPS)


class Usage(unittest.TestCase):
    def refuse(self, expected, *arguments):
        done = subprocess.run([SCRIPT, *arguments], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout, len(done.stderr.splitlines())), (2, "", 1), done.stderr)
        self.assertIn(expected, done.stderr)

    def test_refused(self):
        config = ["--config", f"{work}/student.yaml"]
        good = [*config, "--run", f"{work}/never", "--winnow-prune", PRUNE]
        self.refuse("--config is missing")
        self.refuse("--run is missing", *config)
        self.refuse("no such file", "--config", f"{work}/no.yaml", "--run", f"{work}/never")
        self.refuse("no such program", *good, "--winnow-prune", f"{work}/no")
        self.refuse("found 'ful', expected some of full,", *good, "--rows", "ful")
        self.refuse("from 1 to 100, found '0'", *good, "--seeds", "0")
        self.refuse("expected KEY=VALUE, found 'seed'", *good, "--set", "seed")
        self.refuse("expected KEY=VALUE behind the name", *good, "--row", "mine")
        self.refuse("expected KEY=VALUE, found 'loss'", *good, "--row", "mine", "loss")
        self.refuse("expected a new name", *good, "--row", "full", "loss.kl=1")
        self.refuse("expected a new name", *good, "--row", "../up", "loss.kl=1")
        self.refuse("unrecognized arguments: --seed 1", *good, "--seed", "1")
        self.assertFalse(os.path.exists(f"{work}/never"))

    def test_help_and_list(self):
        self.assertIn("examples:", subprocess.run([SCRIPT, "--help"], capture_output=True, text=True, check=True).stdout)
        listed = subprocess.run([SCRIPT, "--list"], capture_output=True, text=True, check=True).stdout.splitlines()
        self.assertEqual([line.split()[0] for line in listed], list(rows.NAMES))

    def test_shipped_configurations(self):
        """Every key of them is one: what is missing is the teacher."""
        for name in ("teacher-small", "compress-small"):
            done = subprocess.run([PRUNE, "compress", "--config", f"{ROOT}/configs/{name}.yaml", "--dry-run", "--set",
                                   "teacher=/no/such/teacher"], capture_output=True, text=True)
            self.assertEqual(done.returncode, 1)
            self.assertIn("/no/such/teacher", done.stderr.splitlines()[-1])


def base(stages, iterations=7, steps=1200, config=None):
    return rows.Base(stages, iterations, steps, 1000, [], config or {})


PAPER = ["blocks+queries | iterations 2 | steps 150", "inner | iterations 2 | steps 150", "hidden | iterations 3 | steps 200"]


class Rows(unittest.TestCase):
    def test_stages(self):
        b = base(PAPER)
        blocks, inner, hidden = PAPER
        self.assertEqual(rows.hidden_first(b), [f"stages=[{hidden}, {blocks}, {inner}]"])
        self.assertEqual(rows.inner_first(b), [f"stages=[{inner}, {blocks}, {hidden}]"])
        everything = "blocks+inner+hidden+queries"
        self.assertEqual(rows.one_shot(b), [f"stages=[{everything} | iterations 1 | steps 1200]"])
        self.assertEqual(rows.merged(b), [f"stages=[{everything} | iterations 4 | steps 171, {everything} | iterations 3 | steps 172]"])
        self.assertEqual(rows.merged(base(PAPER, 6)), [f"stages=[{everything} | iterations 6 | steps 200]"])

    def test_every_built_in_row(self):
        config = {"loss.nll": "0.5", "loss.kl": "1", "loss.pair": "1", "loss.relation": "1", "loss.hidden": "1",
                  "loss.finish_hidden": "0", "importance.method": "taylor", "importance.blocks": "importance", "start": "pruned",
                  "data.recombined": "100", "data.unlabelled_ads": "40", "data.unlabelled": "0"}
        made, left_out = rows.make(base(PAPER, config=config), set(rows.NAMES))
        self.assertEqual(([row.name for row in made], left_out), (list(rows.NAMES), []))
        self.assertEqual(made[0].sets, [])

    def test_rows_without_a_difference(self):
        one = base(["blocks+inner | iterations 1 | steps 9"], 1, 9, {"loss.kl": "0", "data.recombined": "0.0"})
        made, left_out = rows.make(one, {"full", "no-kl", "no-recombined", "merged", "one-shot", "hidden-first", "inner-first"})
        self.assertEqual([row.name for row in made], ["full"])
        self.assertEqual([reason.split(":")[0] for reason in left_out],
                         ["no-kl", "hidden-first", "inner-first", "merged", "one-shot", "no-recombined"])

    def test_shape_by_hand(self):
        def stack(hidden, blocks, **more):
            return {"hidden_size": hidden, "blocks": [{"num_heads": 2, "head_dim": 8, "cross_num_heads": 0, "cross_head_dim": 0,
                                                      "ffn_dim": 32, **more} for _ in range(blocks)]}
        same = stack(16, 2, cross_num_heads=1, cross_head_dim=8)
        final = {"vision": stack(24, 3), "qformer": same, "text": stack(16, 1), "num_query_tokens": 5}
        teacher = {"vision": stack(32, 4), "qformer": same, "text": stack(32, 2), "num_query_tokens": 9}
        self.assertEqual(plan.shape_sets(final, teacher), [
            "target.kind=none", "final.num_query_tokens=5", "final.vision.num_hidden_layers=3", "final.vision.hidden_size=24",
            "final.vision.num_attention_heads=2", "final.vision.head_dim=8", "final.vision.intermediate_size=32",
            "final.text.num_hidden_layers=1", "final.text.hidden_size=16", "final.text.num_attention_heads=2",
            "final.text.head_dim=8", "final.text.intermediate_size=32"])
        final["text"] = {"hidden_size": 16, "blocks": stack(16, 1)["blocks"] + stack(16, 1, ffn_dim=8)["blocks"]}
        with self.assertRaisesRegex(plan.PlanError, "text: blocks .* of different widths"):
            plan.shape_sets(final, teacher)
        final["text"] = stack(16, 1, cross_num_heads=1, cross_head_dim=8)
        with self.assertRaisesRegex(plan.PlanError, "different widths"):
            plan.shape_sets(final, teacher)

    def test_printed_configuration(self):
        text = "# a: b\nname: x\n\nlimits:\n  # c\n  vision:\n    blocks: 2\n  queries: 3\nstages: [\"a | b: c\"]\nloss:\n  kl: 1\n"
        self.assertEqual(plan.flat_config(text), {"name": "x", "limits.vision.blocks": "2", "limits.queries": "3",
                                                  "stages": "[\"a | b: c\"]", "loss.kl": "1"})


class Table(unittest.TestCase):
    def test_figures(self):
        self.assertEqual(table.mean_sd([2.0, 4.0]), (3.0, 2 ** 0.5))
        self.assertEqual((table.mean_sd([2.0]), table.mean_sd([])), ((2.0, None), (None, None)))
        self.assertEqual(table.verdict([0.9, 0.92], [0.8, 0.82]), "worse")
        self.assertEqual(table.verdict([0.8, 0.82], [0.9, 0.92]), "better")
        self.assertEqual(table.verdict([0.8, 0.9], [0.78, 0.9]), "within the noise")
        self.assertEqual(table.verdict([0.8, 0.9], [0.1]), "too few seeds to tell")

    def test_markdown(self):
        def row(name, *runs):
            return {"name": name, "runs": [{"seed": i + 1, "accuracy": a, "macro_f1": f} for i, (a, f) in enumerate(runs)]}
        text = table.markdown([row("all", (0.9, 0.8), (0.92, 0.8)), row("less", (0.7, 0.75), (0.72, 0.75)), row("one", (0.95, 0.9))],
                              "About.", [("x seed 1", "why")])
        self.assertEqual(text.splitlines()[4:7], ["| all | 2 | 91.00 ± 1.41 |  | 80.00 ± 0.00 |  |  |",
                                                  "| less | 2 | 71.00 ± 1.41 | -20.00 | 75.00 ± 0.00 | -5.00 | worse |",
                                                  "| one | 1 | 95.00 | +4.00 | 90.00 | +10.00 | too few seeds to tell |"])
        self.assertEqual(text.splitlines()[-1], "- x seed 1: why")
        self.assertIn("| all | 0 | – |", table.markdown([row("all")], "", []))


if __name__ == "__main__":
    unittest.main(verbosity=2)
