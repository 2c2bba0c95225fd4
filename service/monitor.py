"""Recall watched online: some live queries are searched exactly too, and what their answers missed becomes a figure."""

from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from index.ad_index import SearchHits
from index.filters import Wanted
from index.recall import ann_recall
from service.lane_metrics import LaneMetrics
from service.low_lane import LowLane
from service.release import Release
from service.sampling import RollingMean, Sampler

RECALL_KS = (10, 100)
LAST_SAMPLES = 200
"""In the rolling mean. The recall of a single query varies by about 0.05 around 0.97, so the mean has a standard error
of 0.004; at 500 queries a second and the default share it spans seven minutes."""


class RecallMonitor:
    """Measures ann_recall@k of releases on a sample of the queries that they answer."""

    def __init__(self, lane: LowLane, metrics: LaneMetrics, share: float, seed: int = 0) -> None:
        """Sample a share (0 to 1) of the answers that are offered."""
        self._lane = lane
        self._metrics = metrics
        self._sampler = Sampler(share, seed)
        self._means: dict[Release, dict[int, RollingMean]] = {}

    def serve(self, release: Release) -> None:
        """Measure the answers of a release, from now until `retire`."""
        self._means.setdefault(release, {k: RollingMean(LAST_SAMPLES) for k in RECALL_KS})

    def retire(self, release: Release) -> None:
        """Forget a release; another of the same name keeps its series."""
        if self._means.pop(release, None) and all(other.name != release.name for other in self._means):
            self._metrics.forget_recall(release.name, RECALL_KS)

    def offer(
        self,
        release: Release,
        embedding: NDArray[np.float32],
        wanted: Wanted,
        hits: SearchHits,
        *,
        degraded: bool = False,
    ) -> None:
        """Take an answer into consideration; from any thread.

        Args:
            release: what answered.
            embedding: of the query, shape (dim,); the very one that was searched with.
            wanted: what the query asked for.
            hits: the answer.
            degraded: searched with less than the usual breadth, which says nothing about the graph: not counted.
        """
        if self._sampler.picks() and not degraded and release in self._means and len(hits.rows) >= RECALL_KS[0]:
            self._lane.offer(partial(self._measure, release, embedding, wanted, hits))

    def _measure(self, release: Release, embedding: NDArray[np.float32], wanted: Wanted, hits: SearchHits) -> None:
        ks = [k for k in RECALL_KS if k <= len(hits.rows)]
        exact = release.ad_index.exact_search(embedding[np.newaxis], [replace(wanted, top_k=ks[-1])])[0]
        means = self._means.get(release)
        if means is None or exact.ads is not hits.ads:  # retired meanwhile, or the rows are of another table of ads
            return
        for k in ks:
            recall = ann_recall(hits.rows[np.newaxis, :k], exact.rows[np.newaxis, :k])
            self._metrics.recall_measured(release.name, k, means[k].add(recall))
