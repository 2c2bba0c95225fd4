"""A segment: some of the ads, searched as a whole. Few are scanned, many get a graph."""

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from artifacts.manifest import HnswParams, SegmentEntry
from artifacts.store import ArtifactError
from index.ads import load_array
from index.exact import ExactScan
from index.hnsw import HnswGraph

WHOLE = "all"
"""The segment that holds every ad."""

EXACT_BELOW = 2000
"""Segments of fewer ads are scanned: at most about 0.12 ms, and always right."""

_ROWS = "rows.npy"
_GRAPH = "graph.hnsw"


class Segment(Protocol):
    """What searches a segment: an `HnswGraph` or an `ExactScan`."""

    @property
    def memory_bytes(self) -> int:
        """Held in memory by the segment."""
        ...

    def search(
        self, embeddings: NDArray[np.float32], k: int, *, effort: float = 1.0
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows and scores, each (n, min(k, ad count)) in falling score; `effort` is a share of `ef_search`."""
        ...


def build_segment(
    directory: Path, vectors: NDArray[np.float32], rows: NDArray[np.int64], params: HnswParams, *, threads: int
) -> Segment:
    """Write a segment of some rows of the vectors (n, dim) into an existing directory."""
    np.save(directory / _ROWS, rows)
    if len(rows) < EXACT_BELOW:
        return ExactScan(vectors[rows], rows)
    graph = HnswGraph.build(vectors, rows, params, threads=threads)
    graph.save(directory / _GRAPH)
    return graph


def load_segment(directory: Path, entry: SegmentEntry, vectors: NDArray[np.float32]) -> Segment:
    """Open a segment of some rows of the vectors (n, dim).

    Raises:
        ArtifactError: a file is missing or damaged, or does not fit what the manifest says.
    """
    path = directory / _ROWS
    rows = np.array(load_array(path, np.int64, ndim=1))
    if len(rows) != entry.ad_count or rows.min() < 0 or rows.max() >= len(vectors):
        raise ArtifactError(f"{path}: does not hold {entry.ad_count} rows of an index of {len(vectors)} ads")
    if entry.ef_search is None:
        return ExactScan(vectors[rows], rows)
    return HnswGraph.load(directory / _GRAPH, vectors, rows, ef_search=entry.ef_search)
