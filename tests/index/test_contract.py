"""The backends there are keep what every `AdIndex` promises."""

import contextlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from artifacts.manifest import Backend
from index.build import BuildOptions, build_index
from index.changes import Change, Upsert
from index.feed import FeedAd
from index.live import LiveIndex
from index.load import FrozenIndex, load_index
from index.merge import merge
from index.record import Record
from index.record_seed import open_record
from tests.index.contract import CAMPAIGNS, ChangeContract, SearchContract
from tests.index.live_shop import Shop
from tests.index.made_up_ads import ADS, VECTORS
from tests.index.support import inputs, write_feed

BUILT = 2_300
"""Of `ADS`, the first ones, so that their largest segment has a graph; the others come later."""


def built(directory: Path, count: int, backend: Backend = "hnswlib") -> Path:
    """An index artifact of the first ads."""
    feed = write_feed(directory / "feed.jsonl", ADS[:count])
    campaigns = write_feed(directory / "campaigns.jsonl", CAMPAIGNS)
    options = BuildOptions(k=20, backend=backend)
    build_index(inputs(feed, embeddings="feed", campaigns=campaigns), directory / "built", options)
    return directory / "built"


class TestHnswlib(SearchContract):
    @pytest.fixture(scope="class")
    @classmethod
    def ad_index(cls, tmp_path_factory: pytest.TempPathFactory) -> FrozenIndex:
        return load_index(built(tmp_path_factory.mktemp("hnswlib"), len(ADS)))


@pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="the extra `faiss` is not installed")
class TestFaiss(SearchContract):
    score_tolerance = 1e-3

    @pytest.fixture(scope="class")
    @classmethod
    def ad_index(cls, tmp_path_factory: pytest.TempPathFactory) -> FrozenIndex:
        return load_index(built(tmp_path_factory.mktemp("faiss"), len(ADS), "faiss"))


class Live(SearchContract):
    """Most ads in a graph, the others written since."""

    @pytest.fixture(scope="class")
    @classmethod
    def ad_index(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveIndex]:
        directory = tmp_path_factory.mktemp("live")
        path, seed = directory / "shop.db", built(directory, BUILT)
        with contextlib.closing(open_record(path, seed)) as record:
            live = LiveIndex.open(path, seed)
            cls.write_the_others(record, live)
            cls.go_on(live)
            yield live

    @staticmethod
    def write_the_others(record: Record, live: LiveIndex) -> None:
        with record.transaction() as transaction:
            ads = map(FeedAd.model_validate, ({**ad, "embedding": None} for ad in ADS[BUILT:]))
            vectors = VECTORS[BUILT:].astype(np.float32)
            changes = [Upsert(ad, vector) for ad, vector in zip(ads, vectors, strict=True)]
            states = [state for state in map(transaction.make, changes) if state is not None]
        live.apply(states)

    @staticmethod
    def go_on(live: LiveIndex) -> None:
        """What else happens before it is searched."""


class TestLive(Live):
    """With the others beside the graph."""


class TestMerged(Live):
    """With the others linked into it, and the graphs swapped."""

    @staticmethod
    def go_on(live: LiveIndex) -> None:
        merge(live.record, live.seed)
        live.adopt(live.snapshots.newest_first()[0])


class LiveShop(Shop):
    """As the contract wants to change it."""

    @property
    def index(self) -> LiveIndex:
        return self.live


class TestLiveChanges(ChangeContract):
    @pytest.fixture
    def changing(self, tmp_path: Path) -> Iterator[LiveShop]:
        shop = LiveShop(tmp_path)
        yield shop
        shop.record.close()


class MergingShop(LiveShop):
    """Swaps its graphs all the time."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._changes = 0

    def make(self, change: Change) -> None:
        super().make(change)
        self._changes += 1
        if self._changes % 5 == 0:
            merge(self.path, self.seed)
            self.live.adopt(self.live.snapshots.newest_first()[0])


class TestMergingChanges(TestLiveChanges):
    @pytest.fixture
    def changing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveShop]:
        for module in ("index.segment", "index.compaction"):
            monkeypatch.setattr(f"{module}.EXACT_BELOW", 40)
        shop = MergingShop(tmp_path)
        yield shop
        shop.record.close()
