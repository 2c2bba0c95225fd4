"""Chooses `ef_search`: the least breadth of search that reaches the recall asked for."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from artifacts.manifest import RecallPoint, RecallReport, SegmentEntry
from index.errors import RecallTargetError
from index.exact import exact_top_k
from index.queries import QuerySample
from index.recall import measure
from index.routing import SegmentKey
from index.segment import Graph
from terminal import progress

STEP = 1.1
"""From one `ef_search` tried to the next: fine enough that the one chosen costs at most a tenth more than needed."""

MAX_FACTOR = 20
"""The largest `ef_search` tried, in k; whoever needs more needs a graph with a larger `M` or `ef_construction`."""

_BEYOND = (1.5, 2.0)
"""Points of the curve past the one chosen, to show what more recall would cost."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """The `ef_search` that was chosen, and how."""

    ef_search: int
    ann_recall: float
    curve: list[RecallPoint]


def segment_entry(key: SegmentKey, ad_count: int, tuned: Tuned | None) -> SegmentEntry:
    """What the manifest says of a segment; `tuned` is None where it is scanned, and so misses nothing."""
    return SegmentEntry(
        name=key.name,
        market=key.market,
        language=key.language,
        kind="hnsw" if tuned else "exact",
        ad_count=ad_count,
        ef_search=tuned and tuned.ef_search,
        ann_recall=tuned.ann_recall if tuned else 1.0,
        curve=tuned.curve if tuned else [],
    )


def tune(
    graph: Graph,
    vectors: NDArray[np.float32],
    rows: NDArray[np.int64],
    embeddings: NDArray[np.float32],
    *,
    k: int,
    target: float,
    name: str,
    near: int | None = None,
    best_effort: bool = False,
) -> Tuned:
    """Find the smallest `ef_search` of a fine ladder that meets the target, and the curve up to there and beyond.

    Args:
        graph: of a segment.
        vectors: L2-normalised, of the whole index, shape (ad count, dim).
        rows: of the segment's positions, rising.
        embeddings: of the queries to measure with, shape (n, dim).
        k: of ann_recall@k.
        target: least ann_recall@k to accept.
        name: of the segment.
        near: an `ef_search` that was right before the segment changed a little; the ladder begins below it, and the
            curve ends at the step that is chosen.
        best_effort: take the best step where none meets the target.

    Raises:
        RecallTargetError: no step of the ladder meets it.
    """
    k = min(k, len(rows))
    exact_rows, _ = exact_top_k(embeddings, vectors, k, rows=rows)
    exact = np.searchsorted(rows, exact_rows)
    curve: list[RecallPoint] = []
    ladder = list(_ladder(k, first=k if near is None else max(k, round(near / STEP**2))))
    with progress(f"Tuning {name}", len(ladder), "steps at most") as advance:
        for ef_search in ladder:
            curve.append(measure(graph, embeddings, exact, ef_search))
            advance(1)
            if curve[-1].ann_recall >= target:
                break
    if curve[-1].ann_recall < target and not best_effort:
        best = max(curve, key=lambda point: point.ann_recall)
        raise RecallTargetError(
            f"segment {name}: ann_recall@{k} of {target} is out of reach: the best is {best.ann_recall:.4f} at"
            f" ef_search {best.ef_search}, {best.search_us:.0f} us a query; lower the target, or build with a larger M"
            " or ef_construction"
        )
    chosen = curve[-1] if curve[-1].ann_recall >= target else max(curve, key=lambda point: point.ann_recall)
    beyond = _BEYOND if near is None else ()
    curve += [measure(graph, embeddings, exact, round(chosen.ef_search * factor)) for factor in beyond]
    return Tuned(chosen.ef_search, chosen.ann_recall, curve)


def recall_report(
    entries: Sequence[SegmentEntry], sample: QuerySample | None, *, k: int, target: float
) -> RecallReport:
    """What is said of a whole index.

    Args:
        entries: of its segments, at least one.
        sample: the queries that they were measured with; None where no segment has a graph.
        k: of ann_recall@k.
        target: what each segment had to reach.
    """
    ads = [entry.ad_count for entry in entries]
    return RecallReport(
        k=min(k, max(ads)),
        target=target,
        ann_recall=float(np.average([entry.ann_recall for entry in entries], weights=ads)),
        query_count=len(sample.embeddings) if sample else 0,
        query_source=sample.source if sample else "none needed: scanned exactly",
    )


def _ladder(k: int, *, first: int) -> Iterator[int]:
    """From k at the least, below which hnswlib searches as if `ef` were k."""
    ef_search = first
    while ef_search <= MAX_FACTOR * k:
        yield ef_search
        ef_search = math.ceil(ef_search * STEP)
