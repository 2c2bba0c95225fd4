"""Exact search: the ground truth of every recall figure."""

import numpy as np
from numpy.typing import NDArray

CHUNK_ROWS = 8192
"""Vectors scored at once: with a thousand queries, 32 MB of scores."""


def exact_top_k(
    embeddings: NDArray[np.float32], vectors: NDArray[np.float32], k: int, *, rows: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the k nearest vectors of each embedding by comparing with all of them.

    Args:
        embeddings: L2-normalised, shape (n, dim).
        vectors: L2-normalised, shape (m, dim); may be mapped from disk.
        k: at least 1; all are returned where there are fewer.
        rows: the rows of `vectors` to compare with; all m where None.

    Returns:
        Rows of `vectors` and cosines, each (n, min(k, rows)), in falling score and for equal scores in rising row.
    """
    best_scores = np.empty((len(embeddings), 0), dtype=np.float32)
    best = np.empty((len(embeddings), 0), dtype=np.int64)
    count = len(vectors) if rows is None else len(rows)
    for start in range(0, count, CHUNK_ROWS):
        end = min(start + CHUNK_ROWS, count)
        chunk = np.arange(start, end) if rows is None else rows[start:end]
        scores = embeddings @ (vectors[start:end] if rows is None else vectors[chunk]).T
        candidates = np.concatenate([best, np.broadcast_to(chunk, scores.shape)], axis=1)
        best_scores, best = _keep_best(np.concatenate([best_scores, scores], axis=1), candidates, k)
    order = np.lexsort((best, -best_scores), axis=1)
    return np.take_along_axis(best, order, axis=1), np.take_along_axis(best_scores, order, axis=1)


def _keep_best(
    scores: NDArray[np.float32], rows: NDArray[np.int64], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    if scores.shape[1] <= k:
        return scores, rows
    kept = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    return np.take_along_axis(scores, kept, axis=1), np.take_along_axis(rows, kept, axis=1)
