"""Releases beside stable: they get a copy of some of its queries in the low lane, never answer, and are compared."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from time import thread_time

import numpy as np

from index.ad_index import SearchHits
from service.lane_metrics import LaneMetrics
from service.low_lane import LowLane, breathe
from service.release import Release
from service.sampling import RollingMean, Sampler

OVERLAP_KS = (10, 100)
LAST_COMPARED = 200


@dataclass(slots=True, eq=False)
class _Seen:
    """What was seen of one release, over the last queries."""

    overlaps: dict[int, RollingMean] = field(
        default_factory=lambda: {k: RollingMean(LAST_COMPARED) for k in OVERLAP_KS}
    )
    difference: RollingMean = field(default_factory=lambda: RollingMean(LAST_COMPARED))


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
        self._seen: dict[Release, _Seen] = {}

    def compare(self, releases: Sequence[Release]) -> None:
        """Compare these releases from now on, and forget those that are not among them."""
        before = self._seen
        self._seen = {release: before.get(release) or _Seen() for release in releases}
        for name in {release.name for release in before} - {release.name for release in releases}:
            self._metrics.forget_comparison(name, OVERLAP_KS)

    def offer(self, query: str, top_k: int, stable_release: Release, stable_hits: SearchHits) -> None:
        """Take one of stable's answers into consideration; from any thread."""
        if self._seen and self._sampler.picks():
            for release in self._seen:
                if release is not stable_release:
                    self._lane.offer(partial(self._compare, release, query, top_k, stable_hits))

    def _compare(self, release: Release, query: str, top_k: int, stable_hits: SearchHits) -> None:
        started = thread_time()  # not the clock: in this lane that tells of the load, not of the release
        embeddings = release.encoder.encode([release.encoder.tokenize(query)])
        encoded = thread_time()
        hits = release.ad_index.search(embeddings, [top_k])[0]
        searched = thread_time()
        breathe()
        seen = self._seen.get(release)
        if seen is not None:  # not retired meanwhile
            self._metrics.release_compared(release.name, encoded - started, searched - encoded)
            self._measure(release.name, seen, hits, stable_hits)

    def _measure(self, release: str, seen: _Seen, hits: SearchHits, stable_hits: SearchHits) -> None:
        count = min(OVERLAP_KS[-1], len(hits.rows), len(stable_hits.rows))
        if count:
            difference = float(np.mean(hits.scores[:count] - stable_hits.scores[:count]))
            self._metrics.score_difference_measured(release, difference, seen.difference.add(difference))
        ad_ids, stable_ids = hits.ad_ids[:count], stable_hits.ad_ids[:count]
        for k in OVERLAP_KS:
            if k <= count:
                overlap = len(set(ad_ids[:k]) & set(stable_ids[:k])) / k
                self._metrics.overlap_measured(release, k, seen.overlaps[k].add(overlap))
