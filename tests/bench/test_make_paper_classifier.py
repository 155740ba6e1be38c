#!/usr/bin/env python3
"""tests/bench/make_paper_classifier.py: what it makes, of the bundled student's weights here, winnow-serve serves as it is.

Usage: test_make_paper_classifier.py WINNOW_SERVE."""
import json
import os
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(HERE, "../server"))
from server_process import RUN, Server, good_image  # noqa: E402

MODEL = os.path.join(HERE, "../../registry/ad-audit/2")


class MakePaperClassifier(unittest.TestCase):
    def test_it_is_served(self):
        with tempfile.TemporaryDirectory(prefix="paper-") as RUN.work:
            out = os.path.join(RUN.work, "out")
            words = [os.path.join(HERE, "make_paper_classifier.py"), "--weights", MODEL, "--like", MODEL, "--out", out, "--tokens", "32"]
            subprocess.run(words, check=True)
            subprocess.run(words, check=True)  # again, over what is there
            with Server(model_dir=out) as server:
                status, _, body = server.audit(good_image(), "文")
                self.assertEqual(status, 200, body)
            with open(os.path.join(MODEL, "winnow.json"), encoding="utf-8") as f:
                self.assertEqual({x["name"] for x in json.loads(body)["labels"]}, {x["name"] for x in json.load(f)["labels"]})


if __name__ == "__main__":
    RUN.take_server(os.path.abspath(sys.argv.pop(1)))
    unittest.main()
