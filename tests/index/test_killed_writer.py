"""What was answered survives `kill -9` at any moment, and what was not is there whole or not at all."""

import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

from index.record import Record
from index.record_reader import RecordReader
from tests.index.records import contents, empty_record

ROOT = Path(__file__).resolve().parents[2]
KILLS = 25
PATIENCE_S = 60.0


def write_until_killed(path: Path, seed: int, after_lines: int) -> list[str]:
    """Have a process change ads, kill it when it has said so many lines; gives all that it said."""
    command = [sys.executable, "-m", "tests.index.killed_writer", str(path), str(seed)]
    lines: list[str] = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        watchdog = threading.Timer(PATIENCE_S, process.kill)
        watchdog.start()
        for line in process.stdout:
            lines.append(line)
            if len(lines) == after_lines:
                process.send_signal(signal.SIGKILL)  # what is under way is cut off; what it said before is read on
        watchdog.cancel()
    assert process.returncode == -signal.SIGKILL
    return [line.strip() for line in lines if line.endswith("\n")]


def test_every_answered_change_is_there_after_a_kill(tmp_path: Path):
    path = empty_record(tmp_path / "record.db")
    chance = random.Random(7)
    bids: dict[str, str | None] = {}
    """What was answered, by ad; None where it was deleted."""
    for seed in range(1, KILLS + 1):
        pending: dict[str, set[str | None]] = {}
        for line in write_until_killed(path, seed, chance.randint(2, 120)):
            word, *rest = line.split()
            if word == "open":
                continue
            kind, ad_id, bid = rest
            outcome = None if kind == "d" else bid
            if word == "submitted":
                pending.setdefault(ad_id, set()).add(outcome)
                continue
            pending[ad_id].discard(outcome)
            if word == "done":
                bids[ad_id] = outcome
        RecordReader(path).check()
        found = {ad_id: str(ad.bid) for ad_id, (ad, _) in contents(path).items()}
        for ad_id, expected in bids.items():
            allowed = {expected} | pending.get(ad_id, set())
            assert found.get(ad_id) in allowed, (seed, ad_id)
        assert set(found) <= bids.keys() | pending.keys()
        bids |= {ad_id: found.get(ad_id) for ad_id in pending}
    record = Record(path)
    assert record.sequence > 0
    record.close()
