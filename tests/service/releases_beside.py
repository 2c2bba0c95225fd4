"""Small real indexes, and a lane whose jobs run when a test says so."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
from prometheus_client import CollectorRegistry

from index.ad_index import SearchHits
from index.build import BuildOptions, build_index
from index.load import FrozenIndex, load_index
from service.lane_metrics import LaneMetrics
from service.low_lane import LowLane
from service.metrics import OUTCOMES
from service.release import Release
from tests.index.support import WordEmbedder, inputs, sample_feed


class LaneByHand:
    """Takes jobs as the lane does, and runs them all at once, here."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = LaneMetrics(self.registry, OUTCOMES)
        self.jobs: list[Callable[[], object]] = []

    def offer(self, job: Callable[[], object]) -> bool:
        self.jobs.append(job)
        return True

    def run_all(self) -> None:
        while self.jobs:
            self.jobs.pop(0)()

    @property
    def lane(self) -> LowLane:
        return cast("LowLane", self)

    def value(self, name: str, **labels: Any) -> float | None:
        return self.registry.get_sample_value(name, {key: str(label) for key, label in labels.items()})


def build_small_index(directory: Path, ad_count: int) -> FrozenIndex:
    feed = sample_feed(directory / "feed.jsonl", ad_count)
    build_index(inputs(feed, WordEmbedder()), directory / "index", BuildOptions(target_recall=0.5))
    return load_index(directory / "index")


def release_of(name: str, ad_index: FrozenIndex) -> Release:
    return Release(name, cast("Any", WordEmbedder()), ad_index, "words-1", ad_index.manifest.index_version)


def hits_of(ad_index: FrozenIndex, rows: list[int]) -> SearchHits:
    return SearchHits(np.array(rows), np.linspace(1, 0.5, len(rows), dtype=np.float32), ad_index.ads)
