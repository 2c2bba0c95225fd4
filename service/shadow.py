"""Releases beside stable: they get a copy of some of its queries in the low lane, never answer, and are compared."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from time import thread_time

import numpy as np

from index.ad_index import SearchHits
from index.filters import Wanted
from service.lane_metrics import LaneMetrics
from service.low_lane import LowLane, breathe
from service.release import Release
from service.sampling import RollingMean, Sampler

OVERLAP_KS = (10, 100)
LAST_COMPARED = 200


@dataclass(slots=True, eq=False)
class _Seen:
    """Which queries one release gets, and what was seen of the last of them."""

    sampler: Sampler
    overlaps: dict[int, RollingMean] = field(
        default_factory=lambda: {k: RollingMean(LAST_COMPARED) for k in OVERLAP_KS}
    )
    difference: RollingMean = field(default_factory=lambda: RollingMean(LAST_COMPARED))


class Shadow:
    """Compares canary and shadow with stable on a sample of the queries that stable answers.

    A canary is compared on stable's queries as well: which queries it answers itself is decided by a hash, so they are
    no others, and each costs one more search instead of two.
    """

    def __init__(self, lane: LowLane, metrics: LaneMetrics, seed: int = 1) -> None:
        self._lane = lane
        self._metrics = metrics
        self._seed = seed
        self._seen: dict[Release, _Seen] = {}

    def compare(self, shares: Mapping[Release, float]) -> None:
        """Compare these releases from now on, each on its share (0 to 1) of stable's queries, and forget all others."""
        seen = {}
        for release, share in shares.items():
            sampler = Sampler(share, self._seed)
            known = self._seen.get(release)
            seen[release] = _Seen(sampler) if known is None else replace(known, sampler=sampler)
        before, self._seen = self._seen, seen
        for name in {release.name for release in before} - {release.name for release in shares}:
            self._metrics.forget_comparison(name, OVERLAP_KS)

    def offer(self, wanted: Wanted, stable_release: Release, stable_hits: SearchHits) -> None:
        """Take one of stable's answers into consideration; from any thread."""
        for release, seen in self._seen.items():
            if release is not stable_release and seen.sampler.picks():
                self._lane.offer(partial(self._compare, release, wanted, stable_hits))

    def _compare(self, release: Release, wanted: Wanted, stable_hits: SearchHits) -> None:
        started = thread_time()  # not the clock: in this lane that tells of the load, not of the release
        embeddings = release.encoder.encode([release.encoder.tokenize(wanted.query)])
        encoded = thread_time()
        hits = release.ad_index.search(embeddings, [wanted])[0]
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
