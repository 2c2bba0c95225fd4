"""When the graphs of a live index are built anew, and what becomes of it; the merges are real processes."""

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from artifacts.store import ArtifactError
from index.live import LiveIndex
from index.merge import ALONE
from service.live_metrics import LiveMetrics
from service.merger import Merger
from tests.index.live_oracle import random_upsert
from tests.index.live_shop import Shop
from tests.waiting import wait_until

PATIENCE_S = 120


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """A merge is due with 20 later ads, and tried again at once."""
    monkeypatch.setattr("index.live.MERGE_LATER_ADS", 20)
    monkeypatch.setattr("service.merger.RETRY_S", 0.01)


class Merged:
    """A shop and its merger."""

    def __init__(self, directory: Path) -> None:
        self.registry = CollectorRegistry()
        self.shop = Shop(directory)
        self.free_bytes = 10**12
        metrics = LiveMetrics(self.registry)
        metrics.observe(self.live.live_stats)
        self.merger = Merger(self.live, metrics, available=lambda: self.free_bytes)

    @property
    def live(self) -> LiveIndex:
        return self.shop.live

    def write_ads(self, count: int = 20) -> None:
        chance = random.Random(0)
        for number in range(count):
            self.shop.make(random_upsert(chance, f"ad-{number}"))

    def merges(self, result: str) -> float:
        return self.registry.get_sample_value("hlm_index_merges_total", {"result": result}) or 0.0


@pytest.fixture
def merged(tmp_path: Path) -> Iterator[Merged]:
    made = Merged(tmp_path)
    yield made
    made.merger.close()
    made.shop.record.close()


def test_later_ads_are_linked_into_the_graphs_and_those_are_swapped(merged: Merged):
    merged.write_ads(19)
    assert merged.live.live_stats().snapshot_sequence == 0
    merged.write_ads(20)
    wait_until(lambda: merged.merges("merged") == 1, PATIENCE_S)
    assert merged.live.live_stats().snapshot_sequence >= 20
    assert merged.registry.get_sample_value("hlm_index_later_ads") == merged.live.live_stats().later_ads < 20
    merged.shop.check()


def test_a_merge_that_finds_no_idle_core_begins_anew_once_it_is_urgent(merged: Merged, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("index.live.URGENT_LATER_ADS", 40)
    started: list[list[str]] = []
    begin = subprocess.Popen
    waits = [sys.executable, "-c", f"import os; os.read(0, 1); os._exit({ALONE})"]

    def begin_but_get_nowhere_at_first(command: list[str], **options: Any) -> "subprocess.Popen[str]":
        started.append(command)
        return begin(command if "--urgent" in command else waits, **options)

    monkeypatch.setattr(subprocess, "Popen", begin_but_get_nowhere_at_first)
    merged.write_ads(30)
    wait_until(lambda: len(started) == 1, PATIENCE_S)
    merged.write_ads(60)
    wait_until(lambda: merged.merges("merged") == 1, PATIENCE_S)
    assert [command[-1] == "--urgent" for command in started] == [False, True]
    assert merged.merges("failed") == 0
    merged.shop.check()


def test_without_memory_for_both_the_graphs_stay_until_there_is_some(merged: Merged):
    merged.free_bytes = 1000
    merged.write_ads()
    wait_until(lambda: merged.merges("failed") > 1, PATIENCE_S)
    assert merged.live.live_stats().snapshot_sequence == 0
    assert len(merged.live.snapshots.newest_first()) == 1  # no other is written as long as this one waits
    merged.shop.check()
    merged.free_bytes = 10**12
    wait_until(lambda: merged.live.live_stats().snapshot_sequence > 0, PATIENCE_S)
    merged.shop.check()


def test_a_snapshot_that_cannot_be_used_is_a_merge_that_failed(
    merged: Merged, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def adopt(_: LiveIndex, snapshot: Path, *, verify: bool) -> None:
        raise ArtifactError(f"{snapshot}: is damaged")

    with monkeypatch.context() as patch:
        patch.setattr(LiveIndex, "adopt", adopt)
        merged.write_ads()
        wait_until(lambda: merged.merges("failed") > 0, PATIENCE_S)
    assert merged.merges("merged") == 0
    assert "ads were not merged: the snapshot that was written cannot be used" in caplog.text
    wait_until(lambda: merged.merges("merged") == 1, PATIENCE_S)
    merged.shop.check()


def test_a_merge_that_fails_is_said_and_tried_again(merged: Merged, caplog: pytest.LogCaptureFixture):
    with merged.live.snapshots.writing():
        merged.write_ads()
        wait_until(lambda: merged.merges("failed") > 0, PATIENCE_S)
    assert "ads were not merged: " in caplog.text
    assert "another process writes a snapshot; wait for it to end" in caplog.text
    wait_until(lambda: merged.merges("merged") > 0, PATIENCE_S)
    merged.shop.check()


def test_a_damaged_snapshot_is_not_swapped_to_but_written_anew(merged: Merged):
    merged.free_bytes = 1000
    merged.write_ads()
    wait_until(lambda: merged.merges("failed") > 0, PATIENCE_S)
    (merged.live.snapshots.newest_first()[0] / "vectors.npy").unlink()
    merged.free_bytes = 10**12
    wait_until(lambda: merged.merges("merged") > 0, PATIENCE_S)
    merged.shop.check()


def test_a_merge_that_goes_on_ends_with_the_service(merged: Merged, monkeypatch: pytest.MonkeyPatch):
    processes = []
    start = __import__("subprocess").Popen

    def started(command: list[str], **options: object):
        processes.append(start([command[0], "-c", "import sys; sys.stdin.read()"], **options))
        return processes[-1]

    monkeypatch.setattr("service.merger.subprocess.Popen", started)
    merged.write_ads()
    wait_until(lambda: bool(processes), PATIENCE_S)
    merged.merger.close()
    assert processes[0].returncode == 0
    assert merged.merges("failed") == 0
