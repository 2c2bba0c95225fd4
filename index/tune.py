"""Chooses `ef_search`: the least breadth of search that reaches the recall asked for."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from artifacts.manifest import RecallPoint, RecallReport
from index.errors import RecallTargetError
from index.exact import exact_top_k
from index.hnsw import HnswGraph
from index.queries import QuerySample
from index.recall import measure
from terminal import progress

STEP = 1.1
"""From one `ef_search` tried to the next: fine enough that the one chosen costs at most a tenth more than needed."""

MAX_FACTOR = 20
"""The largest `ef_search` tried, in k; whoever needs more needs a graph with a larger `M` or `ef_construction`."""

_BEYOND = (1.5, 2.0)
"""Points of the curve past the one chosen, to show what more recall would cost."""


def tune(graph: HnswGraph, vectors: NDArray[np.float32], sample: QuerySample, *, k: int, target: float) -> RecallReport:
    """Set the graph to the smallest `ef_search` of a fine ladder that meets the target, and report the curve.

    Args:
        graph: over all of `vectors`.
        vectors: L2-normalised, shape (ad count, dim).
        sample: the queries.
        k: of ann_recall@k.
        target: least ann_recall@k to accept.

    Raises:
        RecallTargetError: no step of the ladder meets it.
    """
    k = min(k, len(vectors))
    exact, _ = exact_top_k(sample.embeddings, vectors, k)

    def at(ef_search: int) -> RecallPoint:
        graph.set_ef_search(ef_search)
        return measure(graph, sample.embeddings, exact, ef_search)

    curve: list[RecallPoint] = []
    ladder = list(_ladder(k))
    with progress("Tuning ef_search", len(ladder), "steps at most") as advance:
        for ef_search in ladder:
            curve.append(at(ef_search))
            advance(1)
            if curve[-1].ann_recall >= target:
                break
    if curve[-1].ann_recall < target:
        best = max(curve, key=lambda point: point.ann_recall)
        raise RecallTargetError(
            f"ann_recall@{k} of {target} is out of reach: the best is {best.ann_recall:.4f} at ef_search"
            f" {best.ef_search}, {best.search_us:.0f} us a query; lower the target, or build with a larger M or"
            " ef_construction"
        )
    chosen = curve[-1]
    curve += [at(round(chosen.ef_search * factor)) for factor in _BEYOND]
    graph.set_ef_search(chosen.ef_search)
    return RecallReport(
        k=k,
        target=target,
        ann_recall=chosen.ann_recall,
        ef_search=chosen.ef_search,
        query_count=len(sample.embeddings),
        query_source=sample.source,
        curve=curve,
    )


def _ladder(k: int) -> Iterator[int]:
    """From k, below which hnswlib searches as if `ef` were k."""
    ef_search = k
    while ef_search <= MAX_FACTOR * k:
        yield ef_search
        ef_search = math.ceil(ef_search * STEP)
