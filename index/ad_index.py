"""The interface between the online service and whatever holds the ads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from artifacts.manifest import IndexManifest, SegmentEntry
from index.ads import AdTable


@dataclass(frozen=True, slots=True)
class SearchHits:
    """The answer to one query, in falling score."""

    rows: NDArray[np.int64]
    """Rows of `ads`, shape (k,)."""
    scores: NDArray[np.float32]
    """Cosine in the embedding space, shape (k,)."""
    ads: AdTable
    """The table that the rows belong to; stays valid when the index swaps its own for another."""

    @property
    def ad_ids(self) -> list[str]:
        """The ads' own ids."""
        found: list[str] = orjson.loads(b"[%s]" % b",".join(self.json_ids))
        return found

    @property
    def json_ids(self) -> list[bytes]:
        """The ads' own ids as JSON strings."""
        return self.ads.json_ids(self.rows)


@dataclass(frozen=True, slots=True)
class IndexStats:
    """What an index holds now."""

    ad_count: int
    segments: tuple[SegmentEntry, ...]
    memory_bytes: int
    """Held by graphs and scanned vectors; the columns are mapped from disk and not counted."""


class AdIndex(Protocol):
    """Finds the ads nearest to query embeddings. Safe to search from several threads at once."""

    @property
    def manifest(self) -> IndexManifest:
        """What the index was built from."""
        ...

    def search(self, embeddings: NDArray[np.float32], top_k: Sequence[int], *, effort: float = 1.0) -> list[SearchHits]:
        """Find the best ads of each query.

        Args:
            embeddings: L2-normalised, shape (n, dim).
            top_k: how many ads each of the n queries asks for, at least 1. Where the index holds fewer, all come back.
            effort: share of the tuned `ef_search` to spend; less is faster and finds a little less.
        """
        ...

    def narrows(self, top_k: int, effort: float) -> bool:
        """Whether a search for so many ads looks at less with this effort than with all."""
        ...

    def still_eligible(self, hits: SearchHits) -> SearchHits:
        """Those of earlier hits of this index that may be shown now, in their order."""
        ...

    def exact_search(self, embeddings: NDArray[np.float32], top_k: int) -> list[SearchHits]:
        """Find the best `top_k` ads of each query by comparing with all of them: the truth that `search` approaches.

        Args:
            embeddings: L2-normalised, shape (n, dim).
            top_k: at least 1. Where the index holds fewer, all come back.
        """
        ...

    def stats(self) -> IndexStats:
        """Counts and sizes now."""
        ...
