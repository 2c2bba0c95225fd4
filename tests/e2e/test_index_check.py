"""`make check-index QUICK=1`, with artifacts of the tests."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs a core for the server and one for its clients"),
]

FIGURES = {
    "filtered_recall_min",
    "filtered_p99_ratio_max",
    "ineligible",
    "flip_s",
    "upsert_s",
    "updates_p99_ratio",
    "kills",
    "lost",
    "churn_recall_drop",
    "merge_p99_ratio",
}


def test_the_last_line_has_every_figure_and_nothing_is_lost_or_ineligible(
    encoder: Path, graph_index: Path, sample_feed: Path, tmp_path: Path
):
    artifacts = ("--encoder", encoder, "--index", graph_index, "--feed", sample_feed, "--work", tmp_path / "filtered")
    command = [sys.executable, "-m", "benchmarks.check_index", *map(str, artifacts), "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures.keys() >= FIGURES
    assert (figures["ineligible"], figures["lost"], figures["kills"]) == (0, 0, 50)
    assert figures["filtered_recall_min"] > 0.9
    assert figures["churn_recall_drop"] < 0.05
