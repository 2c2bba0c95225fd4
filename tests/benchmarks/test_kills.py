"""A live index that is killed again and again: what was acknowledged is there."""

from pathlib import Path

import pytest

from benchmarks.kills import Account, survive


def test_nothing_that_was_acknowledged_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("index.segment.EXACT_BELOW", "index.compaction.EXACT_BELOW", "terminal.console.quiet"):
        monkeypatch.setattr(name, False if name.endswith("quiet") else 2_000)  # so that they are put back
    account, failed_starts, damaged = survive(tmp_path, kills=12, seed=0)
    assert (account.lost, failed_starts, damaged) == (0, 0, 0)
    assert account.acknowledged > 0
    assert list((tmp_path / "shop.db.snapshots").iterdir())


@pytest.mark.parametrize(
    ("lines", "found", "lost"),
    [
        (["? a 1.0", "! a 1.0"], {"a": 1.0}, 0),
        (["? a 1.0", "! a 1.0"], {}, 1),
        (["? a 1.0"], {}, 0),
        (["? a 1.0"], {"a": 1.0}, 0),
        (["? a 1.0", "! a 1.0", "? a 2.0"], {"a": 2.0}, 0),
        (["? a 1.0", "! a 1.0", "? a 2.0", "! a 2.0"], {"a": 1.0}, 1),
        (["? a 1.0", "! a 1.0", "? a None", "! a None"], {"a": 1.0}, 1),
        (["? a 1.0", "! a 1.0", "? a None"], {}, 0),
        ([], {"b": 1.0}, 1),
    ],
)
def test_an_ad_is_as_acknowledged_or_as_asked_for_since(lines: list[str], found: dict[str, float], lost: int):
    account = Account()
    for line in lines:
        account.hear(line)
    account.compare(found)
    assert account.lost == lost
