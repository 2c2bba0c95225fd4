"""A coarse picture of a segment: which ads lie side by side, and a short code of each.

Where a filter follows the topic, the ads about a query pass nearly all or nearly none of them, whatever the share of
the whole segment; a graph search cannot know, and finds its way out of a barred topic only by being as broad as it.
Clusters say how many ads about a query pass, and where to look for them; codes of a tenth of a vector's size say which
of those are worth fetching. Figures are in docs/experiments.md, "filtered search".
"""

from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from artifacts.store import ArtifactError
from index.ads import load_array

CLUSTER_ADS = 200
"""In a cluster, on average."""
MAX_CLUSTERS = 2048
"""A query is compared with all centroids, which at this number costs about 0.1 ms."""
CODE_DIM = 128
"""Principal components in a code, a byte each; of MiniLM's 384 they hold 84 % of the length of a vector, squared."""
_CODE_MAX = 127
_TRAINING_ADS = 64
"""For each cluster; k-means and the components see no more."""
_ROUNDS = 8
"""Of k-means."""
_CHUNK_ROWS = 8192
_CENTROIDS, _CLUSTERS, _PROJECTION, _CODES = "centroids.npy", "clusters.npy", "projection.npy", "codes.npy"


class Coarse:
    """Positions of a segment in slots, those of a cluster side by side, and their codes. Immutable."""

    def __init__(
        self,
        centroids: NDArray[np.float32],
        cluster: NDArray[np.int32],
        projection: NDArray[np.float32],
        codes: NDArray[np.int8],
    ) -> None:
        """Put the parts together.

        Args:
            centroids: L2-normalised, shape (clusters, dim).
            cluster: of each position.
            projection: from a vector to the units of its code, shape (dim, code dim).
            codes: by slot, shape (n, code dim).
        """
        self.centroids = centroids
        self.members = np.argsort(cluster, kind="stable").astype(np.int32)
        """The position of each slot."""
        self.starts = np.zeros(len(centroids) + 1, dtype=np.int64)
        """The first slot of each cluster, and the end of the last."""
        np.cumsum(np.bincount(cluster, minlength=len(centroids)), out=self.starts[1:])
        self.codes = codes
        self._cluster = cluster
        self._projection = projection

    @classmethod
    def build(cls, vectors: NDArray[np.float32], rows: NDArray[np.int64]) -> Self:
        """Picture some rows of L2-normalised vectors (n, dim)."""
        count = min(max(1, len(rows) // CLUSTER_ADS), MAX_CLUSTERS)
        chance = np.random.default_rng(0)
        sample = np.array(vectors[chance.choice(rows, min(len(rows), _TRAINING_ADS * count), replace=False)])
        centroids, projection = _centroids(sample, count), _projection(sample)
        cluster = _nearest(vectors, rows, centroids)
        return cls(
            centroids, cluster, projection, _codes(vectors, rows[np.argsort(cluster, kind="stable")], projection)
        )

    def continued(self, gone: NDArray[np.int64], added: NDArray[np.float32]) -> "Coarse":
        """Without some positions, and with new ones after the others; what was learned from the first ads stays.

        Args:
            gone: positions, rising.
            added: L2-normalised vectors of the new ones, shape (m, dim).
        """
        new = np.arange(len(added))
        cluster = np.concatenate([np.delete(self._cluster, gone), _nearest(added, new, self.centroids)])
        codes = np.empty_like(self.codes)
        codes[self.members] = self.codes
        codes = np.concatenate([np.delete(codes, gone, axis=0), _codes(added, new, self._projection)])
        return Coarse(self.centroids, cluster, self._projection, codes[np.argsort(cluster, kind="stable")])

    @property
    def memory_bytes(self) -> int:
        """Held in memory, as far as it grows with the ads."""
        return self.codes.nbytes + self.members.nbytes + self._cluster.nbytes

    def save(self, directory: Path) -> None:
        """Write all files into an existing directory."""
        np.save(directory / _CENTROIDS, self.centroids)
        np.save(directory / _CLUSTERS, self._cluster)
        np.save(directory / _PROJECTION, self._projection)
        np.save(directory / _CODES, self.codes)

    @classmethod
    def load(cls, directory: Path, *, dim: int, count: int) -> Self:
        """Read what `save` wrote.

        Raises:
            ArtifactError: a file is missing, unreadable, or not of `count` positions and this dimension.
        """
        centroids = np.array(load_array(directory / _CENTROIDS, np.float32, ndim=2))
        cluster = np.array(load_array(directory / _CLUSTERS, np.int32, ndim=1))
        projection = np.array(load_array(directory / _PROJECTION, np.float32, ndim=2))
        codes = np.array(load_array(directory / _CODES, np.int8, ndim=2))
        shapes = (centroids.shape[1], len(cluster), *projection.shape, *codes.shape)
        code_dim = min(dim, CODE_DIM)
        if shapes != (dim, count, dim, code_dim, count, code_dim) or cluster.max(initial=0) >= len(centroids):
            raise ArtifactError(f"{directory}: clusters and codes are not of {count} ads of dim {dim}")
        return cls(centroids, cluster, projection, codes)

    def from_nearest(self, embedding: NDArray[np.float32]) -> "Runs":
        """All slots, the cluster nearest to an embedding (dim,) first."""
        return Runs(self.starts, np.argsort(-(self.centroids @ embedding)))

    def best(self, embedding: NDArray[np.float32], slots: NDArray[np.int64], count: int) -> NDArray[np.int64]:
        """Those `count` of some slots whose codes are nearest to an embedding (dim,), in no order."""
        query = embedding @ self._projection
        scores = np.empty(len(slots), dtype=np.float32)
        for start in range(0, len(slots), _SCORED_AT_ONCE):
            chunk = slice(start, start + _SCORED_AT_ONCE)
            scores[chunk] = self.codes.take(slots[chunk], axis=0).astype(np.float32) @ query
        kept: NDArray[np.int64] = slots[np.argpartition(-scores, count - 1)[:count]]
        return kept


_SCORED_AT_ONCE = 1024
"""Codes that are made floats together: 0.5 MB, which stays in a core's cache."""


class Runs:
    """The slots of clusters in some order, taken as many at a time as are wanted."""

    def __init__(self, starts: NDArray[np.int64], order: NDArray[np.int64]) -> None:
        """Start before the first cluster."""
        self._first, self._end = starts[order], starts[order + 1]
        self._reached = np.cumsum(self._end - self._first)
        self._taken = 0

    @property
    def left(self) -> bool:
        """Whether there are more."""
        return self._taken < len(self._first)

    def take(self, count: int) -> NDArray[np.int64]:
        """The next slots, at least so many, of whole clusters; all there are where those are fewer."""
        begin = self._taken
        before = self._reached[begin - 1] if begin else 0
        self._taken = min(int(np.searchsorted(self._reached, before + count)) + 1, len(self._first))
        first, reached = self._first[begin : self._taken], self._reached[begin : self._taken]
        # A run counts on from its first slot: the place in the result, and how far the slot is ahead of it.
        ahead = first - np.concatenate([[0], reached[:-1] - before])
        slots: NDArray[np.int64] = np.arange(int(reached[-1] - before))
        slots += np.repeat(ahead, self._end[begin : self._taken] - first)
        return slots


def _centroids(sample: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Spherical k-means of L2-normalised vectors (n, dim)."""
    centroids = sample[:count].copy()
    everything = np.arange(len(sample))
    for _ in range(_ROUNDS):
        nearest = _nearest(sample, everything, centroids)
        for cluster in range(count):
            own = sample[nearest == cluster]
            if len(own):
                centroids[cluster] = own.mean(axis=0)
        centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    return centroids


def _nearest(
    vectors: NDArray[np.float32], rows: NDArray[np.int64], centroids: NDArray[np.float32]
) -> NDArray[np.int32]:
    """The cluster of each of some rows."""
    cluster = np.empty(len(rows), dtype=np.int32)
    for start in range(0, len(rows), _CHUNK_ROWS):
        chunk = rows[start : start + _CHUNK_ROWS]
        cluster[start : start + len(chunk)] = (vectors[chunk] @ centroids.T).argmax(axis=1)
    return cluster


def _projection(sample: NDArray[np.float32]) -> NDArray[np.float32]:
    """Principal components of vectors (n, dim), each as long as one unit of a code's byte: shape (dim, code dim)."""
    _, components = np.linalg.eigh(sample.T @ sample)  # in rising order
    components = components[:, ::-1][:, :CODE_DIM]
    unit = np.abs(sample @ components).max(axis=0) / _CODE_MAX
    projection: NDArray[np.float32] = (components * np.maximum(unit, np.finfo(np.float32).tiny)).astype(np.float32)
    return projection


def _codes(vectors: NDArray[np.float32], rows: NDArray[np.int64], projection: NDArray[np.float32]) -> NDArray[np.int8]:
    """The code of each of some rows; what is beyond the largest byte is cut."""
    codes = np.empty((len(rows), projection.shape[1]), dtype=np.int8)
    to_units = projection / np.square(np.linalg.norm(projection, axis=0))
    for start in range(0, len(rows), _CHUNK_ROWS):
        chunk = rows[start : start + _CHUNK_ROWS]
        codes[start : start + len(chunk)] = np.rint(vectors[chunk] @ to_units).clip(-_CODE_MAX, _CODE_MAX)
    return codes
