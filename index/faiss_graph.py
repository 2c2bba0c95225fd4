"""The only importer of faiss: an HNSW graph whose vectors are stored as float16, in about half the memory of hnswlib's.

Vectors are normalised, so rounding them to float16 moves a cosine by less than 0.0005; recall is measured against exact
search on the float32 vectors, and so has the rounding in it. The package is an extra of its own, `faiss`.
"""

import logging
import math
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from artifacts.manifest import HnswParams
from artifacts.store import ArtifactError
from index.errors import BackendError
from index.labels import NO_LABELS, labels_of, positions_of
from terminal import progress

logging.getLogger("faiss").setLevel(logging.WARNING)  # it announces which of its builds it loads
try:
    import faiss
except ImportError as error:
    raise BackendError(
        f"graphs of the backend faiss need the package faiss-cpu, the extra `faiss` of hlm-retrieval: {error}"
    ) from error

_CHUNK_ROWS = 2000
_SLACK = 1.5
"""Of a search in a graph with dead vectors, which lie closer together in some places than in others."""

logger = logging.getLogger(__name__)


class FaissGraph:
    """A frozen graph over the vectors of a segment; searching it from several threads at once is safe.

    faiss knows its vectors by labels, from 0 in the order in which they came, and cannot take one out: those that are
    dead stay as ways to the others. A position counts those alone that can be found, in the order of their labels.
    """

    def __init__(self, graph: faiss.IndexHNSWSQ, dead: NDArray[np.int64] = NO_LABELS) -> None:
        """Take a finished graph and its dead labels, rising; `build` and `load` are the ways in."""
        self._graph = graph
        self.dead = dead
        """Labels of the vectors that are never found, rising."""
        self._positions = positions_of(graph.ntotal, dead) if len(dead) else None
        self._alive = np.packbits(np.isin(np.arange(graph.ntotal), dead, invert=True), bitorder="little")
        self._selector = faiss.IDSelectorBitmap(self._alive) if len(dead) else None  # refers to the bits, not a copy

    @classmethod
    def build(cls, vectors: NDArray[np.float32], rows: NDArray[np.int64], params: HnswParams, *, threads: int) -> Self:
        """Build a graph whose positions are those of `rows`; with one thread, the same input gives the same graph.

        Args:
            vectors: L2-normalised, shape (n, dim), one for each ad of the index.
            rows: the ads to put into this graph.
            params: a larger `M` costs memory (about 8 bytes times `M` an ad), a larger `ef_construction` build time.
            threads: how many build.
        """
        graph = faiss.IndexHNSWSQ(vectors.shape[1], faiss.ScalarQuantizer.QT_fp16, params.M, faiss.METRIC_INNER_PRODUCT)
        graph.is_trained = True  # there is nothing to learn from the vectors, which are only rounded
        graph.hnsw.efConstruction = params.ef_construction
        graph.hnsw.rng = faiss.RandomGenerator(params.seed)
        _link(graph, vectors, rows, "Building graph", threads)
        return cls(graph)

    @classmethod
    def load(cls, path: Path, *, dim: int, count: int, dead: NDArray[np.int64] = NO_LABELS) -> Self:
        """Read a graph that `save` wrote.

        Args:
            path: the file.
            dim: of its vectors.
            count: how many of them can be found.
            dead: labels of the others, rising.

        Raises:
            ArtifactError: the file is no graph, or one of another dimension or number of ads.
        """
        try:
            graph = faiss.read_index(str(path))
        except RuntimeError as error:
            raise ArtifactError(f"{path}: faiss cannot load it: {error}") from error
        if not isinstance(graph, faiss.IndexHNSWSQ):
            raise ArtifactError(f"{path}: is an {type(graph).__name__} where an IndexHNSWSQ is expected")
        found, expected = graph.ntotal, count + len(dead)
        if (graph.d, found) != (dim, expected):
            raise ArtifactError(
                f"{path}: is a graph of {found} ads of dim {graph.d} where {expected} of dim {dim} are expected"
            )
        return cls(graph, dead)

    def continued(self, gone: NDArray[np.int64], added: NDArray[np.float32], *, threads: int) -> "FaissGraph":
        """Take some vectors out and put others in; only for a graph that nobody searches, which is this one no more.

        Args:
            gone: positions of those that are to be found no more, rising.
            added: L2-normalised, shape (m, dim); their positions follow those of the vectors that stay.
            threads: how many add.
        """
        alive = labels_of(self._graph.ntotal, self.dead)
        _link(self._graph, added, np.arange(len(added)), "Extending graph", threads)
        return FaissGraph(self._graph, np.union1d(self.dead, alive[gone]))

    def save(self, path: Path) -> None:
        """Write the graph, in place: `path` must lie in a directory that is published when whole."""
        faiss.write_index(self._graph, str(path))

    @property
    def count(self) -> int:
        """Vectors that can be found."""
        count: int = self._graph.ntotal
        return count - len(self.dead)

    @property
    def memory_bytes(self) -> int:
        """Held by vectors and links."""
        hnsw = self._graph.hnsw
        links: int = hnsw.neighbors.size() * 4 + hnsw.offsets.size() * 8 + hnsw.levels.size() * 4
        vectors: int = self._graph.ntotal * self._graph.storage.sa_code_size()
        return links + vectors

    def search(
        self, embeddings: NDArray[np.float32], breadth: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]] | None:
        """Positions and scores of what a search of some breadth ends with, each (n, min(breadth, count)), best first.

        None where fewer were found, which faiss fills up with -1: the graph's start is connected to fewer.
        """
        breadth = min(breadth, self.count)
        faiss.omp_set_num_threads(1)  # for this thread: searches run side by side already
        # The dead are walked through as well, and take up places in the queue of those to go on from.
        ef_search = breadth if self._selector is None else math.ceil(_SLACK * breadth * self._graph.ntotal / self.count)
        parameters = faiss.SearchParametersHNSW(efSearch=ef_search, sel=self._selector)
        scores, labels = self._graph.search(np.ascontiguousarray(embeddings), breadth, params=parameters)
        if (labels[:, -1] < 0).any():
            logger.warning("a graph of %d ads has to be scanned: a search for %d found fewer", self.count, breadth)
            return None
        return labels if self._positions is None else self._positions[labels], scores


def _link(
    graph: faiss.IndexHNSWSQ, vectors: NDArray[np.float32], rows: NDArray[np.int64], label: str, threads: int
) -> None:
    faiss.omp_set_num_threads(threads)  # for what this thread starts; OpenMP keeps the number by thread
    with progress(label, len(rows), "ads") as advance:
        for start in range(0, len(rows), _CHUNK_ROWS):
            chunk = rows[start : start + _CHUNK_ROWS]
            graph.add(np.ascontiguousarray(vectors[chunk]))
            advance(len(chunk))
