"""A segment: the ads of one market and language, searched as a whole. Few are scanned, many get a graph."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from artifacts.manifest import Backend, HnswParams, SegmentEntry
from artifacts.store import ArtifactError
from index.ads import load_array
from index.coarse import Coarse
from index.filters import Rows
from index.hnsw import HnswGraph
from index.routing import SegmentKey
from index.sample import Sample

if TYPE_CHECKING:
    from index.faiss_graph import FaissGraph

EXACT_BELOW = 2000
"""Segments of fewer ads are scanned: at most about 0.12 ms, and always right."""

_ROWS = "rows.npy"
_GRAPHS: dict[Backend, str] = {"hnswlib": "graph.hnsw", "faiss": "graph.faiss"}
_DEAD = "dead.npy"
"""Labels of the graph that are of no ad any more, where there are any."""


class Graph(Protocol):
    """What finds near vectors of a segment by position: a `HnswGraph` or a `FaissGraph`."""

    dead: NDArray[np.int64]
    """Labels of the vectors that are never found, rising."""

    @property
    def memory_bytes(self) -> int:
        """Held in memory."""

    def search(
        self, embeddings: NDArray[np.float32], breadth: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]] | None:
        """Positions and scores, each (n, min(breadth, count)), in falling score; None where it cannot find as many."""

    def continued(self, gone: NDArray[np.int64], added: NDArray[np.float32], *, threads: int) -> "Graph":
        """Take vectors out by position, and put others (m, dim) in behind; only where nobody searches it any more."""

    def save(self, path: Path) -> None:
        """Write it."""


@dataclass(frozen=True, slots=True)
class Linked:
    """What a segment of many ads has beside them."""

    graph: Graph
    ef_search: int
    """Breadth by which the graph reaches the recall asked for."""
    ef_per_hit: float
    """The same as a multiple of the hits that recall was measured at."""
    coarse: Coarse
    sample: Sample

    @property
    def memory_bytes(self) -> int:
        """Held in memory."""
        return self.graph.memory_bytes + self.coarse.memory_bytes


@dataclass(frozen=True, slots=True)
class Segment:
    """Some ads, by position; the rows that they have in the whole index rise with the position."""

    key: SegmentKey
    rows: NDArray[np.int64]
    vectors: NDArray[np.float32]
    """L2-normalised: the ads' own, shape (n, dim), where all are scanned, else those of the whole index by row."""
    linked: Linked | None = None
    """None where all are scanned."""

    @property
    def span(self) -> Rows:
        """All rows; as a slice where they follow one another, as those of an index of one segment do."""
        count = len(self.rows)
        if not count or self.rows[-1] - self.rows[0] + 1 != count:
            return self.rows
        return slice(int(self.rows[0]), int(self.rows[-1]) + 1)

    @property
    def memory_bytes(self) -> int:
        """Held in memory; the vectors of the whole index are mapped from disk."""
        return self.vectors.nbytes if self.linked is None else self.linked.memory_bytes

    def rows_at(self, positions: NDArray[np.integer]) -> NDArray[np.int64]:
        """Rows of some positions; not looked up where they follow one another."""
        span = self.span
        return positions + np.int64(span.start) if isinstance(span, slice) else self.rows[positions]

    def take(self, positions: NDArray[np.integer], out: NDArray[np.float32]) -> NDArray[np.float32]:
        """Vectors of some positions, put into `out`, shape (n, dim)."""
        places = positions if self.linked is None else self.rows[positions]
        # "clip" is never needed; with the default numpy would write elsewhere first, and then into `out`.
        return np.take(self.vectors, places, axis=0, out=out, mode="clip")


def graph_type(backend: Backend) -> "type[HnswGraph | FaissGraph]":
    """What graphs of a backend are.

    Raises:
        BackendError: its package, which is optional, is not installed.
    """
    if backend == "hnswlib":
        return HnswGraph
    from index.faiss_graph import FaissGraph  # noqa: PLC0415 - needs an optional package

    return FaissGraph


def build_segment(
    directory: Path,
    vectors: NDArray[np.float32],
    rows: NDArray[np.int64],
    params: HnswParams,
    *,
    backend: Backend,
    threads: int,
) -> Graph | None:
    """Write a segment of some rows of the vectors (n, dim) into an existing directory; gives its graph, if any."""
    if len(rows) < EXACT_BELOW:
        save_segment(directory, rows, None, backend)
        return None
    graph = graph_type(backend).build(vectors, rows, params, threads=threads)
    save_segment(directory, rows, (graph, Coarse.build(vectors, rows)), backend)
    return graph


def save_segment(
    directory: Path, rows: NDArray[np.int64], linked: tuple[Graph, Coarse] | None, backend: Backend
) -> None:
    """Write a segment into an existing directory."""
    np.save(directory / _ROWS, rows)
    if linked is not None:
        graph, coarse = linked
        coarse.save(directory)
        graph.save(directory / _GRAPHS[backend])
        if len(graph.dead):
            np.save(directory / _DEAD, graph.dead)


def dead_count(directory: Path) -> int:
    """Vectors in a segment's graph that are of no ad any more.

    Raises:
        ArtifactError: the file that lists them cannot be read.
    """
    path = directory / _DEAD
    return len(load_array(path, np.int64, ndim=1)) if path.exists() else 0


def load_segment(
    directory: Path, entry: SegmentEntry, vectors: NDArray[np.float32], backend: Backend, *, recall_k: int
) -> Segment:
    """Open a segment of some rows of the vectors (n, dim), whose breadth was chosen at `recall_k` hits.

    Raises:
        BackendError: the package that its graph needs is not installed.
        ArtifactError: a file is missing or damaged, or does not fit what the manifest says.
    """
    path = directory / _ROWS
    rows = np.array(load_array(path, np.int64, ndim=1))
    rising = len(rows) == entry.ad_count and (np.diff(rows) > 0).all()
    if not rising or rows[0] < 0 or rows[-1] >= len(vectors):
        raise ArtifactError(f"{path}: does not hold {entry.ad_count} rows of an index of {len(vectors)} ads")
    key = SegmentKey(entry.market, entry.language)
    if entry.ef_search is None:
        return Segment(key, rows, vectors[rows])
    path, dead = directory / _GRAPHS[backend], directory / _DEAD
    dead_labels = np.array(load_array(dead, np.int64, ndim=1)) if dead.exists() else np.empty(0, dtype=np.int64)
    graph = graph_type(backend).load(path, dim=vectors.shape[1], count=len(rows), dead=dead_labels)
    coarse = Coarse.load(directory, dim=vectors.shape[1], count=len(rows))
    return Segment(key, rows, vectors, Linked(graph, entry.ef_search, entry.ef_search / recall_k, coarse, Sample(rows)))
