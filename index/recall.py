"""ann_recall@k: how much of what exact search finds is found without comparing everything."""

import time
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from artifacts.manifest import RecallPoint
from index.segment import Graph


def ann_recall(found: Iterable[NDArray[np.int64]], exact: Iterable[NDArray[np.int64]]) -> float:
    """Mean share of each query's exact rows that are among its found ones; where there is none, none is missed."""
    shares = [
        len(np.intersect1d(left, right)) / len(right) if len(right) else 1.0
        for left, right in zip(found, exact, strict=True)
    ]
    return float(np.mean(shares))


def measure(graph: Graph, embeddings: NDArray[np.float32], exact: NDArray[np.int64], ef_search: int) -> RecallPoint:
    """Recall and speed of a graph, one query at a time on this thread.

    Args:
        graph: what to measure.
        embeddings: queries, shape (n, dim).
        exact: positions that exact search finds, shape (n, k).
        ef_search: how broadly to search.
    """
    found, seconds = [], []
    for row in range(len(embeddings)):
        started = time.perf_counter()
        answer = graph.search(embeddings[row : row + 1], ef_search)
        seconds.append(time.perf_counter() - started)
        found.append(exact[row] if answer is None else answer[0][0, : exact.shape[1]])  # it would be scanned
    search_us = float(np.median(seconds)) * 1e6
    return RecallPoint(ef_search=ef_search, ann_recall=ann_recall(found, exact), search_us=round(search_us, 1))
