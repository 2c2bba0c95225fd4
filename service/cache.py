"""What was computed before: query embeddings, and for a short while whole results.

Real traffic is Zipf's: of a large search engine's queries the 1,000 most frequent are 11 % and the 10,000 most frequent
20 % of the volume, and a query's embedding changes only with the encoder.
"""

import contextlib
import threading
from collections.abc import Callable
from time import monotonic
from typing import NamedTuple
from weakref import WeakSet

import numpy as np
from cachetools import LRUCache, TTLCache
from numpy.typing import NDArray

from index.ad_index import SearchHits
from index.filters import Filters, Wanted
from service.release import Release

ENTRY_BYTES = 400
"""Of an entry beside its text and its numbers: key, array and dictionary slots, measured with tracemalloc."""
MOST_RESULTS = 20_000
"""Results of 100 ads are about 1.5 KB, so some 30 MB; within a few seconds of life more distinct ones are rare."""


class EmbeddingKey(NamedTuple):
    """What an embedding depends on."""

    model_version: str
    text: str
    """The query as the tokenizer sees it."""


class _Entry(NamedTuple):
    embedding: NDArray[np.float32]
    size: int


class EmbeddingCache:
    """The most recently used query embeddings, bounded by bytes. Safe to use from several threads."""

    def __init__(self, max_bytes: int) -> None:
        """Hold at most `max_bytes`; 0 turns it off."""
        self._entries: LRUCache[EmbeddingKey, _Entry] = LRUCache(max_bytes, getsizeof=lambda entry: entry.size)
        self._lock = threading.Lock()

    @property
    def enabled(self) -> bool:
        """Whether anything can be held."""
        return self._entries.maxsize > 0

    @property
    def bytes(self) -> int:
        """Held now."""
        return int(self._entries.currsize)

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: EmbeddingKey) -> NDArray[np.float32] | None:
        """The embedding, shape (dim,), if it is there."""
        with self._lock:
            entry = self._entries.get(key)
        return entry.embedding if entry else None

    def put(self, key: EmbeddingKey, embedding: NDArray[np.float32]) -> None:
        """Keep an embedding, shape (dim,), instead of those that were not used for longest."""
        size = len(key.text.encode()) + embedding.nbytes + ENTRY_BYTES
        if size > self._entries.maxsize:
            return
        entry = _Entry(embedding.copy(), size)  # a row of a batch would keep the whole batch alive
        with self._lock:
            self._entries[key] = entry


class ResultKey(NamedTuple):
    """What a result depends on."""

    release: Release
    text: str
    top_k: int
    filters: Filters


class ResultCache:
    """Hits of the last moments, for bursts of one query. Used on the event loop alone."""

    def __init__(self, ttl_s: float, clock: Callable[[], float] = monotonic) -> None:
        """Keep each result for `ttl_s`; 0 turns it off."""
        self._results: TTLCache[ResultKey, SearchHits] = TTLCache(MOST_RESULTS, ttl_s, timer=clock)
        self._retired: WeakSet[Release] = WeakSet()
        self.enabled = ttl_s > 0

    def __len__(self) -> int:
        return len(self._results)

    def get(self, key: ResultKey, wanted: Wanted) -> SearchHits | None:
        """The hits if they are there and every ad among them may be shown now; otherwise it has to be searched."""
        hits = self._results.get(key)
        if hits is None:
            return None
        eligible = key.release.ad_index.still_eligible(hits, wanted)
        if len(eligible.rows) < len(hits.rows):
            self._results.pop(key, None)  # it may have expired meanwhile
            return None
        return eligible

    def put(self, key: ResultKey, hits: SearchHits) -> None:
        """Keep the hits of a full answer, unless they are for one request id, or their release is served no more."""
        if hits.for_others and key.release not in self._retired:
            self._results[key] = hits

    def retire(self, release: Release) -> None:
        """Forget all, and keep nothing of this release, so that it can be freed once its last requests are answered."""
        self._retired.add(release)
        with contextlib.suppress(KeyError):  # raised when it is empty
            # The library's `clear` leaves rings of links, which hold the keys until the garbage collector runs.
            while True:
                self._results.popitem()
