"""ann_recall@k: how much of what exact search finds a graph finds too."""

import time

import numpy as np
from numpy.typing import NDArray

from artifacts.manifest import RecallPoint
from index.segment import Segment


def ann_recall(found: NDArray[np.int64], exact: NDArray[np.int64]) -> float:
    """Mean share of the exact rows (n, k) that are among the found rows (n, k)."""
    shares = [len(np.intersect1d(left, right)) / len(right) for left, right in zip(found, exact, strict=True)]
    return float(np.mean(shares))


def measure(segment: Segment, embeddings: NDArray[np.float32], exact: NDArray[np.int64], ef_search: int) -> RecallPoint:
    """Recall and speed of a segment as it is set up now, one query at a time on this thread.

    Args:
        segment: what to measure.
        embeddings: queries, shape (n, dim).
        exact: rows that exact search finds, shape (n, k).
        ef_search: what the segment is set to, for the record.
    """
    found, seconds = [], []
    for row in range(len(embeddings)):
        started = time.perf_counter()
        rows, _ = segment.search(embeddings[row : row + 1], exact.shape[1])
        seconds.append(time.perf_counter() - started)
        found.append(rows[0])
    search_us = float(np.median(seconds)) * 1e6
    return RecallPoint(
        ef_search=ef_search, ann_recall=ann_recall(np.stack(found), exact), search_us=round(search_us, 1)
    )
