"""A build that is killed goes on where it was, and ends in the same bytes."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from artifacts.store import file_sha256
from index.load import load_index
from tests.index.support import sample_feed

ROOT = Path(__file__).resolve().parents[2]
AD_COUNT = 3000
SHARES = (0.02, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.97, 0.99)


def run(feed: Path, out: Path, change: int = -1) -> subprocess.CompletedProcess[str]:
    out.parent.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "tests.index.killed_build", str(feed), str(out), str(change)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def hashes(directory: Path) -> dict[str, str]:
    """Of every file that more than one thread may not change: all but graph and manifest."""
    paths = [path for path in directory.rglob("*.npy") if path.is_file()]
    return {path.relative_to(directory).as_posix(): file_sha256(path) for path in paths}


@pytest.fixture(scope="module")
def feed(tmp_path_factory) -> Path:
    return sample_feed(tmp_path_factory.mktemp("feed") / "feed.jsonl.gz", AD_COUNT)


@pytest.fixture(scope="module")
def undisturbed(feed: Path, tmp_path_factory) -> tuple[dict[str, int], dict[str, str]]:
    """Counts of a build that nobody killed, and the hashes of its files."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    result = run(feed, out)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout), hashes(out)


@pytest.mark.parametrize("share", SHARES)
def test_a_build_killed_at_any_moment_ends_in_the_same_bytes(feed: Path, undisturbed, tmp_path: Path, share: float):
    counts, expected = undisturbed
    out = tmp_path / "place" / "out"
    assert run(feed, out, int(share * counts["changes"])).returncode == -signal.SIGKILL
    again = run(feed, out)
    assert again.returncode == 0, again.stderr
    assert hashes(out) == expected
    assert load_index(out).manifest.ad_count == AD_COUNT
    assert not (out.parent / ".out.work").exists()


def test_what_was_embedded_before_the_kill_is_not_embedded_again(feed: Path, undisturbed, tmp_path: Path):
    counts, expected = undisturbed
    out = tmp_path / "place" / "out"
    left = []
    for share in (0.3, 0.5, 0.7):  # killed again and again
        assert run(feed, out, int(share * counts["changes"])).returncode == -signal.SIGKILL
        left.append(len(list((out.parent / ".out.work" / "shards").glob("[0-9]*.npy"))))
    assert left == sorted(left)
    assert left[-1] > 0
    again = json.loads(run(feed, out).stdout)
    assert again["encoded"] <= counts["encoded"] - 512 * left[0]
    assert hashes(out) == expected
