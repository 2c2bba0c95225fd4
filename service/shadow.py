"""Releases beside stable: they get a copy of some of its queries in the low lane, never answer, and are compared."""

from collections.abc import Sequence
from functools import partial
from time import thread_time

import numpy as np

from index.ad_index import SearchHits
from service.lane_metrics import LaneMetrics
from service.low_lane import LowLane
from service.release import Release
from service.sampling import RollingMean, Sampler

OVERLAP_KS = (10, 100)
LAST_COMPARED = 200


class Shadow:
    """Compares canary and shadow with stable on a sample of the queries that stable answers.

    A canary is compared on stable's queries as well: which queries it answers itself is decided by a hash, so they are
    no others, and each costs one more search instead of two.
    """

    def __init__(self, lane: LowLane, metrics: LaneMetrics, share: float, seed: int = 1) -> None:
        """Sample a share (0 to 1) of the answers that are offered."""
        self._lane = lane
        self._metrics = metrics
        self._sampler = Sampler(share, seed)
        self._overlaps: dict[Release, dict[int, RollingMean]] = {}

    def compare(self, releases: Sequence[Release]) -> None:
        """Compare these releases from now on, and forget those that are not among them."""
        before = self._overlaps
        self._overlaps = {
            release: before.get(release) or {k: RollingMean(LAST_COMPARED) for k in OVERLAP_KS} for release in releases
        }
        for name in {release.name for release in before} - {release.name for release in releases}:
            self._metrics.forget_comparison(name, OVERLAP_KS)

    def offer(self, query: str, top_k: int, stable_release: Release, stable_hits: SearchHits) -> None:
        """Take one of stable's answers into consideration; from any thread."""
        if self._overlaps and self._sampler.picks():
            for release in self._overlaps:
                if release is not stable_release:
                    self._lane.offer(partial(self._compare, release, query, top_k, stable_hits))

    def _compare(self, release: Release, query: str, top_k: int, stable_hits: SearchHits) -> None:
        started = thread_time()  # not the clock: in this lane that tells of the load, not of the release
        embeddings = release.encoder.encode([release.encoder.tokenize(query)])
        encoded = thread_time()
        hits = release.ad_index.search(embeddings, [top_k])[0]
        searched = thread_time()
        overlaps = self._overlaps.get(release)
        if overlaps is None:  # retired meanwhile
            return
        k = min(OVERLAP_KS[-1], len(hits.rows), len(stable_hits.rows))
        if k:
            difference = float(np.mean(hits.scores[:k] - stable_hits.scores[:k]))
            self._metrics.release_compared(release.name, difference, encoded - started, searched - encoded)
        ad_ids, stable_ids = hits.ad_ids, stable_hits.ad_ids
        for k in OVERLAP_KS:
            if k <= min(len(ad_ids), len(stable_ids)):
                overlap = len(set(ad_ids[:k]) & set(stable_ids[:k])) / k
                self._metrics.overlap_measured(release.name, k, overlaps[k].add(overlap))
