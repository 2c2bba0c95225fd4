"""A live index over its record: changes, merges and restarts in any order, damage, and many readers."""

import contextlib
import copy
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from typer.testing import CliRunner

from artifacts.manifest import IndexManifest
from artifacts.store import ArtifactError, load_manifest
from index.changes import Delete
from index.cli import app
from index.errors import MergeBusyError, RecordError
from index.merge import merge
from index.record import Record
from index.snapshots import Snapshots
from tests.index.live_oracle import WANTED, random_change, random_upsert
from tests.index.live_shop import EMBEDDINGS, Shop
from tests.index.support import DIM, unit_vectors


@pytest.fixture(autouse=True)
def small_graphs(monkeypatch):
    """Graphs from 40 ads on, so that small tests have some."""
    for module in ("index.segment", "index.compaction"):
        monkeypatch.setattr(f"{module}.EXACT_BELOW", 40)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path)
    yield made
    made.record.close()


def change_much(shop: Shop, changes: int, *, seed: int = 0) -> None:
    chance = random.Random(seed)
    for _ in range(changes):
        shop.make(random_change(chance, shop.oracle, ids=300))


class LiveMachine(RuleBasedStateMachine):
    """Changes, merges, swaps and restarts in any order: the answers are always those of a dictionary."""

    directory: Path

    def __init__(self) -> None:
        super().__init__()
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir()
        self.shop = Shop(self.directory)
        self.chance = random.Random(0)

    @rule(count=strategies.integers(1, 120), seed=strategies.integers(0, 1000))
    def change(self, count: int, seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(count):
            self.shop.make(random_change(chance, self.shop.oracle, ids=150))

    @rule(rebuild=strategies.booleans())
    def merge(self, rebuild: bool) -> None:
        self.shop.merge(rebuild=rebuild)

    @rule()
    def adopt(self) -> None:
        for newest in self.shop.live.snapshots.newest_first()[:1]:
            with contextlib.suppress(ArtifactError):  # the next rule may have been there
                self.shop.live.adopt(newest)

    @rule()
    def forget_deletions(self) -> None:
        known = self.shop.live.snapshots.known_to_all(self.shop.record.sequence)
        with self.shop.record.transaction() as transaction:
            transaction.forget_deletions(0, known)

    @rule()
    def restart(self) -> None:
        self.shop.restart()

    @rule()
    def lose_the_newest_snapshot(self) -> None:
        for newest in self.shop.live.snapshots.newest_first()[:1]:
            (newest / "vectors.npy").unlink(missing_ok=True)  # in place it would change under those who have it mapped

    @invariant()
    def answers_as_a_dictionary(self) -> None:
        self.shop.check()

    def teardown(self) -> None:
        self.shop.record.close()


def test_any_order_of_changes_merges_and_restarts(tmp_path: Path):
    from hypothesis.stateful import run_state_machine_as_test

    LiveMachine.directory = tmp_path / "machine"
    run_state_machine_as_test(
        LiveMachine, settings=settings(max_examples=6, stateful_step_count=10, deadline=None, derandomize=True)
    )


def test_the_graphs_are_swapped_while_changes_and_searches_go_on(shop: Shop):
    """Every answer is of ads that there were, each once; the last one is of all that was changed."""
    change_much(shop, 200)
    ever = set(shop.oracle.ads) | {f"ad-{number}" for number in range(300)}
    done, seen, faults = threading.Event(), [0], list[BaseException]()

    def read() -> None:
        try:
            while not done.is_set():
                for hits, wanted in zip(shop.live.search(EMBEDDINGS, WANTED), WANTED, strict=True):
                    ad_ids = hits.ad_ids
                    assert len(ad_ids) == len(set(ad_ids)) <= wanted.top_k
                    assert ever.issuperset(ad_ids)
                    shop.live.still_eligible(hits, wanted)
                    seen[0] += 1
        except BaseException as error:
            faults.append(error)

    def swap() -> None:
        try:
            while not done.is_set():
                merge(shop.path, shop.seed)
                shop.live.adopt(shop.live.snapshots.newest_first()[0])
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=target) for target in (read, read, swap)]
    for thread in threads:
        thread.start()
    change_much(shop, 600, seed=1)
    done.set()
    for thread in threads:
        thread.join()
    assert not faults
    assert seen[0] > 0
    assert shop.live.live_stats().snapshot_sequence > 0
    shop.check()


def test_earlier_hits_are_looked_at_again_after_the_graphs_were_swapped(shop: Shop):
    change_much(shop, 200)
    before = shop.live.search(EMBEDDINGS, WANTED)
    gone = before[0].ad_ids[0]
    shop.merge()
    shop.live.adopt(shop.live.snapshots.newest_first()[0])
    shop.make(Delete(gone))
    for hits, wanted in zip(before, WANTED, strict=True):
        now = shop.live.still_eligible(hits, wanted)
        assert now.ad_ids == [ad_id for ad_id in hits.ad_ids if ad_id != gone]
        assert now.scores.tolist() == [
            score for ad_id, score in zip(hits.ad_ids, hits.scores.tolist(), strict=True) if ad_id != gone
        ]


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "a flipped bit": flip_a_bit,
    "a truncated file": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "a missing file": Path.unlink,
    "vectors of another dimension": lambda path: np.save(path, unit_vectors(1, DIM // 2)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_snapshot_is_named_and_the_one_before_it_used(shop: Shop, caplog, damage: Callable[[Path], None]):
    change_much(shop, 100)
    shop.merge()
    change_much(shop, 100, seed=1)
    shop.merge()
    damaged = shop.live.snapshots.newest_first()[0] / "vectors.npy"
    damage(damaged)
    change_much(shop, 20, seed=2)
    shop.restart()
    shop.check()
    assert f"a snapshot cannot be used, an older one is: {damaged}: " in caplog.text
    shop.merge()
    shop.restart()
    assert shop.live.live_stats().snapshot_sequence == shop.record.sequence
    shop.check()


def test_without_a_whole_base_the_file_is_named_and_all_can_be_built_from_the_record(shop: Shop):
    change_much(shop, 200)
    shop.merge()
    for base in (shop.seed, *shop.live.snapshots.newest_first()):
        flip_a_bit(base / "eligibility" / "distinct.json")
    with pytest.raises(ArtifactError, match=r"seed/eligibility/distinct.json: has sha256"):
        shop.restart()
    done = CliRunner().invoke(app, ["rebuild", str(shop.path), str(shop.seed)])
    assert done.exit_code == 0, done.output
    assert f"{len(shop.oracle.ads):,} ads, changes up to number {shop.record.sequence:,}" in done.output
    shop.restart()
    shop.check()


def test_a_snapshot_that_is_ahead_of_its_record_is_removed(shop: Shop, tmp_path: Path):
    """The last commits were lost with the power, or the record was restored from a copy: numbers come again."""
    change_much(shop, 100)
    shop.record.close()
    shutil.copy(shop.path, tmp_path / "copy")
    before = copy.deepcopy(shop.oracle)
    shop.record = Record(shop.path)
    change_much(shop, 50, seed=1)
    shop.merge()
    shop.record.close()
    shutil.copy(tmp_path / "copy", shop.path)
    shop.record, shop.oracle = Record(shop.path), before
    shop.restart()
    shop.check()
    change_much(shop, 100, seed=2)
    shop.restart()
    shop.check()


def test_a_snapshot_that_is_written_is_not_tidied_away_for_strange_ones(shop: Shop, tmp_path: Path):
    """The record was restored from a copy, and the snapshots that are ahead of it were left where they lie."""
    change_much(shop, 20)
    shop.record.close()
    shutil.copy(shop.path, tmp_path / "copy")
    shop.record = Record(shop.path)
    for seed in (1, 2):
        change_much(shop, 20, seed=seed)
        shop.merge()
    shop.record.close()
    shutil.copy(tmp_path / "copy", shop.path)
    merged = merge(shop.path, shop.seed)
    assert [int(path.name) for path in Snapshots(shop.path).newest_first()] == [merged.sequence]
    shop.record = Record(shop.path)


def test_the_index_of_another_record_is_not_merged_with(shop: Shop, tmp_path: Path):
    other = tmp_path / "other"
    shutil.copytree(shop.seed, other)
    manifest = load_manifest(other, IndexManifest)
    (other / "manifest.json").write_text(manifest.model_copy(update={"index_version": "other-1"}).model_dump_json())
    with pytest.raises(RecordError, match=r"began with the index .*, and .*other is other-1; give each index a record"):
        merge(shop.path, other, rebuild=True)
    assert Snapshots(shop.path).newest_first() == []


def test_one_process_at_a_time_writes_a_snapshot(shop: Shop):
    with Snapshots(shop.path).writing(), pytest.raises(MergeBusyError, match="another process writes a snapshot"):
        merge(shop.path, shop.seed)
    shop.merge()


def test_a_merge_is_due_by_later_ads_by_gone_ones_and_by_time(shop: Shop, monkeypatch):
    monkeypatch.setattr("index.live.MERGE_LATER_ADS", 150)
    now = shop.live.live_stats().snapshot_at
    assert not shop.live.live_stats().needs_merge(now + 1e6)  # nothing has changed
    chance = random.Random(0)
    for number in range(149):
        shop.make(random_upsert(chance, f"ad-{number}"))
    assert not shop.live.live_stats().needs_merge(now + 3_599)
    assert shop.live.live_stats().needs_merge(now + 3_600)
    shop.make(random_upsert(chance, "ad-148"))  # the first version of it goes on to be scanned
    assert shop.live.live_stats().needs_merge(now)
    shop.make(random_upsert(chance, "ad-149"))
    shop.merge()
    shop.restart()
    assert not shop.live.live_stats().needs_merge(now)
    for number in range(31):
        shop.make(Delete(f"ad-{number}"))
    assert shop.live.live_stats().needs_merge(now)
