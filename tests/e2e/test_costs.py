"""`make bench` and its plot, in small."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT

pytestmark = pytest.mark.e2e

STAGES = ["parse", "admit", "tokenize", "batch", "encode", "search", "respond", "bare", "retrieve"]


def run(module: str, *args: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, args)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_every_stage_is_measured_kept_and_drawn(encoder: Path, sample_index: Path, tmp_path: Path):
    history, plot = tmp_path / "history.jsonl", tmp_path / "reports" / "costs.png"
    small = ("--rounds", "1", "--seconds", "0.01", "--history", history)
    done = run("micro", "--encoder", encoder, "--index", sample_index, *small)
    assert done.returncode == 0, done.stderr
    kept = history.read_text().splitlines()
    assert kept == done.stdout.splitlines()[-len(kept) :]
    lines = [json.loads(line) for line in kept]
    assert list(dict.fromkeys(line["stage"] for line in lines)) == STAGES
    assert all(0 < line["least_us"] <= line["us"] <= line["most_us"] for line in lines)
    assert {(line["ads"], line["top_k"]) for line in lines} == {(3_000, 100)}
    assert lines[0].keys() >= {"date", "commit", "machine", "versions", "encoder", "index"}
    done = run("history", history, plot)
    assert done.returncode == 0, done.stderr
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("content", ["", "not JSON\n"])
def test_what_is_no_history_is_refused(tmp_path: Path, content: str):
    (tmp_path / "history.jsonl").write_text(content)
    done = run("history", tmp_path / "history.jsonl", tmp_path / "costs.png")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path / 'history.jsonl'}: ")
