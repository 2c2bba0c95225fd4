"""`make check-swap`, in small."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from service.settings import Settings
from tests.e2e.conftest import CACHE, ROOT, hlm

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif("swap" not in Settings.model_fields, reason="this service does not swap releases"),
]


def test_swaps_fail_and_mix_nothing_and_bad_releases_are_refused(encoder: Path, sample_feed: Path, tmp_path: Path):
    other = CACHE / "encoders" / "minilm-fp32"
    hlm("export", "demo", "--out", other, "--precision", "fp32")
    artifacts = ("--encoder", encoder, "--other-encoder", other, "--feed", sample_feed, "--work", tmp_path / "swap")
    small = ("--swaps", "5", "--seconds", "1.5", "--load", "0.3")
    command = [sys.executable, "-m", "benchmarks.swap", *map(str, (*artifacts, *small))]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    figures = json.loads(result.stdout.splitlines()[-1])
    assert (figures["swaps"], figures["failed"], figures["mixed"]) == (5, 0, 0)
    assert figures["bad_artifacts_refused"] == figures["bad_artifacts"] == 8
