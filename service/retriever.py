"""The online path, query to ads, as one straight line."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

from index.ad_index import SearchHits
from index.ads import FieldName
from service.answer import to_json
from service.batcher import MicroBatcher
from service.errors import ClientGone, DeadlineExceeded
from service.metrics import Metrics, StageTimes
from service.monitor import RecallMonitor
from service.release import Release
from service.schemas import RetrieveRequest
from service.shadow import Shadow


@dataclass(frozen=True, slots=True)
class TokenizedQuery:
    """What a worker needs to know of a request."""

    token_ids: list[int]
    top_k: int
    fields: list[FieldName]


@dataclass(frozen=True, slots=True)
class Found:
    """One query's hits, and how its batch spent its time (seconds; instants of `perf_counter`)."""

    hits: SearchHits
    columns: dict[FieldName, list[Any]]
    """The fields that were asked for; read by the worker, since they may have to come from disk."""
    started_at: float
    encode_s: float
    search_s: float


class Connection(Protocol):
    """What a request came by."""

    on_loss: Callable[[], None] | None
    """Called when the client goes away."""


class Retriever:
    """Answers requests from one release."""

    def __init__(
        self, release: Release, batcher: MicroBatcher[TokenizedQuery, Found], metrics: Metrics, shadow: Shadow
    ) -> None:
        self._release = release
        self._batcher = batcher
        self._metrics = metrics
        self._shadow = shadow

    async def retrieve(
        self,
        request: RetrieveRequest,
        *,
        arrived: float,
        deadline: float,
        connection: Connection | None,
    ) -> bytes:
        """The ads for one query, as the body of the answer.

        Args:
            request: validated.
            arrived: when the request came in, in seconds of `perf_counter`.
            deadline: when the answer is worth nothing any more, on the same clock.
            connection: what the request came by, if it tells of its loss.

        Raises:
            Overloaded: refused before anything was spent on it.
            DeadlineExceeded: the time budget ran out.
            ClientGone: the connection was lost.
            PipelineError: encoding or searching failed for this query.
        """
        if deadline <= perf_counter():
            raise DeadlineExceeded("the time budget was spent before the body was in")
        self._batcher.admit()
        token_ids = self._release.encoder.tokenize(request.query)
        tokenized = perf_counter()
        query = TokenizedQuery(token_ids, request.top_k, request.fields)
        future = self._batcher.submit(query, tokens=len(token_ids), deadline=deadline)
        if connection is not None:
            connection.on_loss = lambda: _give_up(future)
        try:
            found = await future
        finally:
            if connection is not None:
                connection.on_loss = None
        times = StageTimes(
            tokenize=tokenized - arrived,
            queue=found.started_at - tokenized,
            encode=found.encode_s,
            search=found.search_s,
            total=perf_counter() - arrived,
        )
        self._metrics.answered(times, complete=len(found.hits.rows) == request.top_k)
        self._shadow.offer(request.query, request.top_k, self._release, found.hits)
        return to_json(request, self._release, found.hits, found.columns, times)


def _columns(hits: SearchHits, fields: Sequence[FieldName]) -> dict[FieldName, list[Any]]:
    return {name: hits.ads.field(name, hits.rows) for name in fields}


def _give_up(future: "asyncio.Future[Found]") -> None:
    if not future.done():
        future.set_exception(ClientGone("the connection was closed"))


def make_pipeline(
    release: Release, metrics: Metrics, monitor: RecallMonitor
) -> Callable[[Sequence[TokenizedQuery]], list[Found]]:
    """The function that a batch worker runs: encode all, then search all."""

    def run(queries: Sequence[TokenizedQuery]) -> list[Found]:
        started = perf_counter()
        embeddings = release.encoder.encode([query.token_ids for query in queries])
        encoded = perf_counter()
        hits = release.ad_index.search(embeddings, [query.top_k for query in queries])
        searched = perf_counter()
        metrics.batch_ran([len(query.token_ids) for query in queries])
        for embedding, one in zip(embeddings, hits, strict=True):
            monitor.offer(release, embedding, one)
        return [
            Found(one, _columns(one, query.fields), started, encoded - started, searched - encoded)
            for one, query in zip(hits, queries, strict=True)
        ]

    return run
