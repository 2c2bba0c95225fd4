"""What a batch worker runs: encode what has to be encoded, then search all."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.ad_index import SearchHits
from index.ads import FieldName
from index.filters import Wanted
from service.cache import EmbeddingCache, EmbeddingKey
from service.cost import BatchCost
from service.release import Release


@dataclass(slots=True, eq=False)
class Query:
    """What a worker needs to know of a request; see `service.batch_queue.Waiting` for what batches make of it."""

    release: Release
    """Everything in the answer comes from it."""
    embedding_key: EmbeddingKey
    token_ids: list[int]
    """Empty where the embedding is known."""
    embedding: NDArray[np.float32] | None
    wanted: Wanted
    fields: list[FieldName]
    caller: Hashable
    shared: bool
    """Whether its embedding is kept for others."""

    @property
    def tokens(self) -> int:
        """What is to be encoded."""
        return len(self.token_ids)

    @property
    def key(self) -> EmbeddingKey | None:
        """What others that want the same embedding wait by."""
        return self.embedding_key if self.shared else None

    @property
    def group(self) -> Release:
        """A batch is of one release."""
        return self.release


@dataclass(frozen=True, slots=True)
class Found:
    """One query's hits, and how its batch spent its time (seconds; instants of `perf_counter`)."""

    hits: SearchHits
    columns: dict[FieldName, list[Any]]
    """The fields that were asked for; read by the worker, since they may have to come from disk."""
    embedding: NDArray[np.float32] | None
    """Shape (dim,); None where the result was cached."""
    started_at: float
    encode_s: float
    search_s: float


Run = Callable[[Sequence[Query], Callable[[], None]], tuple[list[Found], BatchCost]]


def make_pipeline(cache: EmbeddingCache) -> Run:
    """The function that a batch worker runs; its queries are of one release, and it says when they are encoded."""

    def run(queries: Sequence[Query], encoded_all: Callable[[], None]) -> tuple[list[Found], BatchCost]:
        started = perf_counter()
        embeddings, lengths = _embed(queries, cache)
        encoded_all()
        encoded = perf_counter()
        hits = queries[0].release.ad_index.search(embeddings, [query.wanted for query in queries])
        searched = perf_counter()
        cost = BatchCost(lengths, encoded - started, len(queries), searched - encoded)
        found = [
            Found(one, columns_of(one, query.fields), embedding, started, cost.encode_s, cost.search_s)
            for one, query, embedding in zip(hits, queries, embeddings, strict=True)
        ]
        return found, cost

    return run


def _embed(queries: Sequence[Query], cache: EmbeddingCache) -> tuple[NDArray[np.float32], list[int]]:
    """Embeddings (n, dim), and the token counts of those that had to be encoded; like queries are encoded once."""
    if cache.enabled:
        for query in queries:
            if query.embedding is None:  # another batch may have made it while this one waited
                query.embedding = cache.get(query.embedding_key)
    missing = {query.embedding_key: query.token_ids for query in queries if query.embedding is None}
    lengths = [len(token_ids) for token_ids in missing.values()]
    if missing:
        encoded = queries[0].release.encoder.encode(list(missing.values()))
        by_key = dict(zip(missing, encoded, strict=True))
        for key, embedding in by_key.items():
            cache.put(key, embedding)
        if len(missing) == len(queries):
            return encoded, lengths
        for query in queries:
            if query.embedding is None:
                query.embedding = by_key[query.embedding_key]
    return np.stack([query.embedding for query in queries if query.embedding is not None]), lengths


def measure_costs(release: Release, max_batch_size: int) -> list[BatchCost]:
    """What short and long, lone and many queries cost, so that the first predictions are not made up."""
    costs = []
    for count in (1, max_batch_size):
        for words in (2, 8, 16):
            token_ids = release.encoder.tokenize("drill " * words)
            started = perf_counter()
            embeddings = release.encoder.encode([token_ids] * count)
            encoded = perf_counter()
            release.ad_index.search(embeddings, [Wanted(100)] * count)
            costs.append(BatchCost([len(token_ids)] * count, encoded - started, count, perf_counter() - encoded))
    return costs


def columns_of(hits: SearchHits, fields: Sequence[FieldName]) -> dict[FieldName, list[Any]]:
    """Values of the fields, in the order of the hits."""
    return {name: hits.ads.field(name, hits.rows) for name in fields}
