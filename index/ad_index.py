"""The interface between the online service and whatever holds the ads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from artifacts.manifest import IndexManifest, SegmentEntry
from index.ads import Ads
from index.filters import Wanted

Short = Literal["filtered", "index_smaller_than_top_k"]
"""Why there are fewer hits than were wanted."""


@dataclass(frozen=True, slots=True)
class SearchHits:
    """The answer to one query, in falling score."""

    rows: NDArray[np.int64]
    """Rows of `ads`, shape (k,)."""
    scores: NDArray[np.float32]
    """Cosine in the embedding space, shape (k,)."""
    ads: Ads
    """The table that the rows belong to; stays valid when the index swaps its own for another."""
    short: Short | None = None
    """None where there are as many as were wanted."""
    for_others: bool = True
    """Whether the same question gets the same ads under another request id."""

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
    """Those that are not to be shown now among them."""
    segments: tuple[SegmentEntry, ...]
    memory_bytes: int
    """Held by graphs and scanned vectors; the columns are mapped from disk and not counted."""


class AdIndex(Protocol):
    """Finds the ads nearest to query embeddings. Safe to search from several threads at once."""

    @property
    def manifest(self) -> IndexManifest:
        """What the index was built from."""
        ...

    def search(self, embeddings: NDArray[np.float32], wanted: Sequence[Wanted]) -> list[SearchHits]:
        """Find the best ads that each query may get.

        Args:
            embeddings: L2-normalised, shape (n, dim).
            wanted: what each of the n queries asks for.
        """
        ...

    def narrows(self, top_k: int, effort: float) -> bool:
        """Whether a search for so many ads looks at less with this effort than with all."""
        ...

    def still_eligible(self, hits: SearchHits, wanted: Wanted) -> SearchHits:
        """Those of earlier hits of this index that may be shown now, to this request, in their order."""
        ...

    def exact_search(self, embeddings: NDArray[np.float32], wanted: Sequence[Wanted]) -> list[SearchHits]:
        """As `search`, by comparing with every ad that a query may get: the truth that `search` approaches.

        Reads all vectors, in chunks without the GIL; `effort` changes nothing.
        """
        ...

    def stats(self) -> IndexStats:
        """Counts and sizes now."""
        ...
