"""The recipe `smoke` as it is shipped, from made-up data to a query that its release answers."""

import subprocess
import sys

import pytest

from tests.e2e.conftest import CACHE, ROOT, Server


def train(*arguments: str) -> str:
    """Run `hlm train` where the recipe's relative paths lie among what tests leave, so that it goes on from there."""
    directory = CACHE / "smoke"
    directory.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(ROOT / "hlm.py"), "train", *arguments]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.e2e
def test_every_phase_runs_and_its_release_answers():
    train("samples", "--out", "var/data/samples")
    train("run", "smoke")
    release = CACHE / "smoke" / "var" / "runs" / "smoke" / "release"
    server = Server("--name", "smoke", "--encoder", release / "encoder", "--index", release / "index")
    answer = server.retrieve("cordless drill 18v", top_k=5).json()
    assert server.stop() == 0
    assert len(answer["ads"]) == 5
    assert (release.parent / "evaluation" / "frontier.svg").is_file()
