"""The only importer of hnswlib: one HNSW graph (Malkov and Yashunin, arXiv 1603.09320), built once and then frozen.

What hnswlib does not do by itself, and this module does: search with several breadths side by side, notice a file of
another dimension, answer a `k` above the number of ads, say when the graph cannot reach k of them.
"""

import logging
import struct
from pathlib import Path
from typing import Self

import hnswlib
import numpy as np
from numpy.typing import NDArray

from artifacts.manifest import HnswParams
from artifacts.store import ArtifactError
from index.labels import NO_LABELS, labels_of, positions_of
from terminal import progress

_CHUNK_ROWS = 2000
_SPACE = "ip"  # vectors are normalised, so one minus hnswlib's "distance" is the cosine

# Start of a file written by hnswlib 0.8: offsetLevel0, max_elements, cur_element_count, size_data_per_element,
# label_offset, offsetData; a vector lies between the last two offsets.
_HEADER = struct.Struct("<6Q")

logger = logging.getLogger(__name__)


class HnswGraph:
    """A frozen graph over the vectors of a segment; searching it from several threads at once is safe.

    hnswlib knows its vectors by labels, from 0 in the order in which they came, and keeps those that were deleted as
    ways to the others. A position counts those alone that can be found, in the order of their labels.
    """

    def __init__(self, graph: hnswlib.Index, dead: NDArray[np.int64] = NO_LABELS) -> None:
        """Take a finished graph and its deleted labels, rising; `build` and `load` are the ways in."""
        self._graph = graph
        self.dead = dead
        """Labels of the vectors that are never found, rising."""
        self._positions = positions_of(self._graph.get_current_count(), dead) if len(dead) else None
        self._graph.set_num_threads(1)  # searches run side by side already; a thread pool a call would only cost
        self._graph.set_ef(1)  # `search` asks for as many as it wants looked at instead

    @classmethod
    def build(cls, vectors: NDArray[np.float32], rows: NDArray[np.int64], params: HnswParams, *, threads: int) -> Self:
        """Build a graph whose labels are positions: that of row `rows[i]` is i.

        With one thread the same input gives the same graph. With more, the order in which threads link their vectors
        differs from run to run, and with it the graph: its recall is as good, its answers at the margin may differ.

        Args:
            vectors: L2-normalised, shape (n, dim), one for each ad of the index.
            rows: the ads to put into this graph.
            params: a larger `M` costs memory (about 8 bytes times `M` an ad), a larger `ef_construction` build time.
            threads: how many build.
        """
        graph = hnswlib.Index(space=_SPACE, dim=vectors.shape[1])
        graph.init_index(len(rows), M=params.M, ef_construction=params.ef_construction, random_seed=params.seed)
        with progress("Building graph", len(rows), "ads") as advance:
            for start in range(0, len(rows), _CHUNK_ROWS):
                positions = np.arange(start, min(start + _CHUNK_ROWS, len(rows)))
                graph.add_items(vectors[rows[positions]], positions, num_threads=threads)
                advance(len(positions))
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
        _check_header(path, dim=dim, ad_count=count + len(dead))
        graph = hnswlib.Index(space=_SPACE, dim=dim)
        try:
            graph.load_index(str(path))
        except RuntimeError as error:
            raise ArtifactError(f"{path}: hnswlib cannot load it: {error}") from error
        return cls(graph, dead)

    def continued(self, gone: NDArray[np.int64], added: NDArray[np.float32], *, threads: int) -> "HnswGraph":
        """Take some vectors out and put others in; only for a graph that nobody searches, which is this one no more.

        New vectors get new labels: where labels are used again, recall falls with every round (docs/experiments.md,
        "live updates").

        Args:
            gone: positions of those that are to be found no more, rising.
            added: L2-normalised, shape (m, dim); their positions follow those of the vectors that stay.
            threads: how many add.
        """
        labels = self._graph.get_current_count()
        alive = labels_of(labels, self.dead)
        for label in alive[gone].tolist():
            self._graph.mark_deleted(label)
        self._graph.resize_index(labels + len(added))
        with progress("Extending graph", len(added), "ads") as advance:
            for start in range(0, len(added), _CHUNK_ROWS):
                chunk = added[start : start + _CHUNK_ROWS]
                self._graph.add_items(chunk, labels + start + np.arange(len(chunk)), num_threads=threads)
                advance(len(chunk))
        return HnswGraph(self._graph, np.union1d(self.dead, alive[gone]))

    def save(self, path: Path) -> None:
        """Write the graph, in place: `path` must lie in a directory that is published when whole."""
        self._graph.save_index(str(path))

    @property
    def count(self) -> int:
        """Vectors that can be found."""
        count: int = self._graph.get_current_count()
        return count - len(self.dead)

    @property
    def memory_bytes(self) -> int:
        """Held by vectors and links."""
        size: int = self._graph.index_file_size()
        return size

    def search(
        self, embeddings: NDArray[np.float32], breadth: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]] | None:
        """Positions and scores of what a search of some breadth ends with, each (n, min(breadth, count)), best first.

        The first k of them are what hnswlib finds with `ef` = breadth. It keeps one `ef` a graph, which searches of
        different breadths would have to take turns with: a request could wait for a search at idle priority that has
        no core. But it searches with the larger of `ef` and k, so asking for as many is the same search.

        None where hnswlib found fewer than it was asked for, which it does not give out: the graph's start is
        connected to fewer, where no breadth can help.
        """
        try:
            labels, distances = self._graph.knn_query(embeddings, k=min(breadth, self.count), num_threads=1)
        except RuntimeError as error:
            logger.warning("a graph of %d ads has to be scanned: %s", self.count, error)
            return None
        positions = labels.astype(np.int64) if self._positions is None else self._positions[labels]
        return positions, 1.0 - distances


def _check_header(path: Path, *, dim: int, ad_count: int) -> None:
    """Refuse what hnswlib would load and then answer nonsense from, or read past the end of."""
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER.size)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror})") from error
    if len(header) < _HEADER.size:
        raise ArtifactError(f"{path}: has {len(header)} bytes, too few for a graph")
    _, _, found_count, _, label_offset, data_offset = _HEADER.unpack(header)
    found_dim = (label_offset - data_offset) // np.dtype(np.float32).itemsize
    if (found_dim, found_count) != (dim, ad_count):
        raise ArtifactError(
            f"{path}: is a graph of {found_count} ads of dim {found_dim} where {ad_count} of dim {dim} are expected"
        )
