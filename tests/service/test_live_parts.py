"""What of a release goes on changing: shared by releases with one record, ended with the last of them."""

import itertools
from contextlib import closing
from pathlib import Path

import pytest

from artifacts.errors import HlmError
from index.changes import AdPatch, AdState, Delete, PatchAd, Upsert
from index.errors import RecordError
from index.feed import FeedAd
from index.filters import Wanted
from index.record import Record
from index.record_reader import RecordReader
from service.loading import Loaded, ReleaseLoader
from service.settings import ReleaseSettings, SwapSettings
from tests.index.support import unit_vectors
from tests.service.small_artifacts import SmallArtifacts, live_opener
from tests.waiting import wait_until

PATIENCE_S = 120


class Loader:
    """Loads releases of one index and record, beside those that were loaded before."""

    def __init__(self, small: SmallArtifacts, record: Path) -> None:
        self._small = small
        self._record = record
        self._loader = ReleaseLoader(SwapSettings(), 4, live_opener())

    def __call__(self, name: str, *held: Loaded, index: Path | None = None, encoder: Path | None = None) -> Loaded:
        wanted = ReleaseSettings(
            name=name, encoder=encoder or self._small.encoder, index=index or self._small.index, record=self._record
        )
        return self._loader.load(wanted, held, lambda: None)


@pytest.fixture
def load(small: SmallArtifacts, tmp_path: Path) -> Loader:
    return Loader(small, tmp_path / "shop.db")


def pause_the_best(loaded: Loaded) -> str:
    """Pause the ad that is nearest to a query; gives its id."""
    release = loaded.release
    assert release.writer is not None
    best = best_ad(loaded)
    assert release.writer.submit([PatchAd(best, AdPatch(status="paused"))]).result().applied == 1
    return best


def best_ad(loaded: Loaded) -> str:
    release = loaded.release
    embedding = release.encoder.encode([release.encoder.tokenize("cordless drill")])
    return release.ad_index.search(embedding, [Wanted(top_k=1)])[0].ad_ids[0]


def test_releases_with_one_record_see_each_others_changes(load: Loader, small: SmallArtifacts):
    first = load("first")
    second = load("second", first, encoder=small.other_encoder)
    assert second.release.ad_index is first.release.ad_index
    assert second.release.live is first.release.live is not None
    paused = pause_the_best(first)
    assert paused not in (best_ad(first), best_ad(second))
    first.release.live.close()


def test_its_writer_asks_whether_requests_are_being_answered(small: SmallArtifacts, tmp_path: Path):
    def is_busy() -> bool:
        asked.append(True)
        return False

    asked: list[bool] = []
    with closing(live_opener(is_busy).open(tmp_path / "shop.db", small.index)) as parts:
        parts.writer.submit([Delete("nobody")]).result(PATIENCE_S)
    assert asked == [True]


def test_a_record_ends_with_the_last_release_that_has_it_and_can_be_opened_again(load: Loader, tmp_path: Path):
    first = load("first")
    second = load("second", first)
    paused = pause_the_best(first)
    del first
    with pytest.raises(RecordError, match="another process writes this record"):
        Record(tmp_path / "shop.db")
    assert best_ad(second) != paused
    del second
    third = load("third")
    assert best_ad(third) != paused
    assert third.release.live is not None
    third.release.live.close()
    Record(tmp_path / "shop.db").close()


def test_a_running_service_forgets_deletions_that_its_snapshots_know(
    load: Loader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("index.live.MERGE_LATER_ADS", 1)
    loaded, numbers = load("first"), itertools.count()
    writer, live = loaded.release.writer, loaded.release.live
    assert writer is not None
    assert live is not None
    vector = unit_vectors(1, live.index.manifest.dim)[0]

    def write(ad_id: str) -> None:
        assert writer.submit([Upsert(FeedAd(ad_id=ad_id, title=ad_id), vector)]).result().applied == 1

    def is_forgotten() -> bool:
        write(f"more-{next(numbers)}")  # so that there is another merge, and another transaction after it
        with closing(RecordReader(tmp_path / "shop.db")) as reader:
            assert reader.find("x") is None
            return "x" not in {state.ad_id for state in reader.page(0, 1_000) if isinstance(state, AdState)}

    write("x")
    assert writer.submit([Delete("x")]).result().applied == 1
    wait_until(is_forgotten, PATIENCE_S)
    assert len(live.index.snapshots.newest_first()) == 2
    live.close()


def test_the_same_index_with_and_without_a_record_are_two(load: Loader, small: SmallArtifacts):
    live = load("live")
    frozen = load._loader.load(
        ReleaseSettings(name="frozen", encoder=small.encoder, index=small.index), [live], lambda: None
    )
    assert frozen.release.ad_index is not live.release.ad_index
    assert frozen.release.encoder is live.release.encoder
    assert frozen.release.writer is None
    paused = pause_the_best(live)
    assert best_ad(frozen) == paused != best_ad(live)
    live.release.live.close()


def test_a_record_of_another_index_is_refused_and_left_alone(load: Loader, small: SmallArtifacts, tmp_path: Path):
    first = load("first")
    with pytest.raises(HlmError, match=r"shop\.db: "):
        load("other", first, index=small.other_index)
    assert best_ad(first)
    del first
    with pytest.raises(RecordError, match="began with the index"):
        load("other", index=small.other_index)

    def is_free() -> bool:
        try:
            Record(tmp_path / "shop.db").close()
        except RecordError:
            return False
        return True

    wait_until(is_free)
