"""The only importer of faiss: an HNSW graph whose vectors are stored as float16, in about half the memory of hnswlib's.

Vectors are normalised, so rounding them to float16 moves a cosine by less than 0.0005; recall is measured against exact
search on the float32 vectors, and so has the rounding in it. The package is an extra of its own, `faiss`.
"""

import logging
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from artifacts.manifest import HnswParams
from artifacts.store import ArtifactError
from index.errors import BackendError
from terminal import progress

try:
    import faiss
except ImportError as error:
    raise BackendError(
        f"graphs of the backend faiss need the package faiss-cpu, the extra `faiss` of hlm-retrieval: {error}"
    ) from error

_CHUNK_ROWS = 2000

logger = logging.getLogger(__name__)


class FaissGraph:
    """A frozen graph over the vectors of a segment; searching it from several threads at once is safe."""

    def __init__(self, graph: faiss.IndexHNSWSQ) -> None:
        """Take a finished graph; `build` and `load` are the ways in."""
        self._graph = graph

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
        faiss.omp_set_num_threads(threads)  # for what this thread starts; OpenMP keeps the number by thread
        with progress("Building graph", len(rows), "ads") as advance:
            for start in range(0, len(rows), _CHUNK_ROWS):
                chunk = rows[start : start + _CHUNK_ROWS]
                graph.add(np.ascontiguousarray(vectors[chunk]))
                advance(len(chunk))
        return cls(graph)

    @classmethod
    def load(cls, path: Path, *, dim: int, count: int) -> Self:
        """Read a graph that `save` wrote.

        Raises:
            ArtifactError: the file is no graph, or one of another dimension or number of ads.
        """
        try:
            graph = faiss.read_index(str(path))
        except RuntimeError as error:
            raise ArtifactError(f"{path}: faiss cannot load it: {error}") from error
        if not isinstance(graph, faiss.IndexHNSWSQ):
            raise ArtifactError(f"{path}: is an {type(graph).__name__} where an IndexHNSWSQ is expected")
        if (graph.d, graph.ntotal) != (dim, count):
            raise ArtifactError(
                f"{path}: is a graph of {graph.ntotal} ads of dim {graph.d} where {count} of dim {dim} are expected"
            )
        return cls(graph)

    def save(self, path: Path) -> None:
        """Write the graph, in place: `path` must lie in a directory that is published when whole."""
        faiss.write_index(self._graph, str(path))

    @property
    def count(self) -> int:
        """Vectors that can be found."""
        count: int = self._graph.ntotal
        return count

    @property
    def memory_bytes(self) -> int:
        """Held by vectors and links."""
        hnsw = self._graph.hnsw
        links: int = hnsw.neighbors.size() * 4 + hnsw.offsets.size() * 8 + hnsw.levels.size() * 4
        vectors: int = self.count * self._graph.storage.sa_code_size()
        return links + vectors

    def search(
        self, embeddings: NDArray[np.float32], breadth: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]] | None:
        """Positions and scores of what a search of some breadth ends with, each (n, min(breadth, count)), best first.

        None where the graph's start is connected to fewer, which faiss fills up with -1.
        """
        breadth = min(breadth, self.count)
        faiss.omp_set_num_threads(1)  # for this thread: searches run side by side already
        parameters = faiss.SearchParametersHNSW(efSearch=breadth)
        scores, positions = self._graph.search(np.ascontiguousarray(embeddings), breadth, params=parameters)
        if (positions[:, -1] < 0).any():
            logger.warning("a graph of %d ads has to be scanned: it connects its start to fewer than asked", self.count)
            return None
        return positions, scores
