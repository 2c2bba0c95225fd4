"""The stages of a request, taken apart so that each can be run by itself, through the code that serves."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.bare import answer_bare
from benchmarks.http_load import request_bytes
from index.filters import Wanted
from service.admission import Admission
from service.answer import StageTimes, answer_of, new_request_id, to_json
from service.batch_queue import BatchPolicy
from service.batcher import MicroBatcher
from service.cache import EmbeddingCache, EmbeddingKey
from service.cost import BatchCost
from service.errors import RequestError
from service.metrics import Metrics
from service.origin import Origin
from service.pipeline import Query, make_pipeline, measure_costs
from service.plain_request import REQUEST_LINE, read_head
from service.release import Release
from service.retriever import Retriever
from service.schemas import RetrieveRequest
from service.settings import ReleaseSettings, Settings
from service.validation import parse_body

BATCH = 8
CALLER = "benchmark"
TIMEOUT_MS = 10_000
"""No request may fail by its deadline here: this is about cost."""
POLICY = BatchPolicy(max_batch_size=BATCH, max_batch_tokens=1024, max_queue_size=1_000)

Stage = Callable[[slice], Awaitable[None]]
"""Does its work for the requests of a slice."""
Begin = Callable[[Callable[[Any], None]], object]
"""Starts something whose outcome the function that it is given will hear."""


class Stages:
    """Requests to one release, prepared for each stage as the stage before it would leave them."""

    def __init__(self, release: Release, queries: Sequence[str], top_k: int) -> None:
        """Prepare; `batch`, `admit` and `retrieve` need `started`."""
        self._release = release
        self._queries = queries
        sent = [request_bytes(query, top_k, TIMEOUT_MS).removeprefix(REQUEST_LINE) for query in queries]
        self._heads = [request[: request.index(b"\r\n\r\n") + 2] for request in sent]
        self._bodies = [request[len(head) + 2 :] for request, head in zip(sent, self._heads, strict=True)]
        self._requests = [parse_body(RetrieveRequest, body) for body in self._bodies]
        self._wanted = [Wanted(top_k)] * len(queries)
        self._token_ids = [release.encoder.tokenize(query) for query in queries]
        self._embeddings = np.concatenate([release.encoder.encode([token_ids]) for token_ids in self._token_ids])
        self._hits = release.ad_index.search(self._embeddings, self._wanted)
        self._items = [self._item(number) for number in range(len(queries))]

    @asynccontextmanager
    async def started(self) -> AsyncIterator[None]:
        """Have the batchers run, each with one worker: one that does nothing, one that is busy, and one that serves."""
        gate = threading.Event()
        self._idle = MicroBatcher(_do_nothing, POLICY, workers=1)
        self._busy = MicroBatcher(partial(_wait_for, gate), BatchPolicy(1, 1024, 1_000), workers=1)
        cache = EmbeddingCache(0)
        serving = MicroBatcher(make_pipeline(cache), POLICY, workers=1, run_few_on_loop=True)
        self._admission = Admission(())
        settings = Settings(release=ReleaseSettings(name="bench", encoder=Path(), index=Path()))
        self._retriever = Retriever(settings, lambda *_: self._release, serving, cache, Metrics())
        batchers = (self._idle, self._busy, serving)
        for batcher in batchers:
            batcher.start()
        for cost in measure_costs(self._release, BATCH):
            self._busy.learn(cost)
            serving.learn(cost)
        for item in self._items[:2]:  # one is run, one waits
            self._busy.submit(item, deadline=perf_counter() + 3_600, on_done=lambda _: None)
        gc.collect()
        gc.freeze()  # as the service does once it is ready
        try:
            yield
        finally:
            gate.set()
            for batcher in batchers:
                await batcher.stop()

    def all(self) -> list[tuple[str, int, Stage]]:
        """Name, batch size and stage, in the order of a request; then all stages together."""
        return [
            ("parse", 1, self.parse),
            ("admit", 1, self.admit),
            ("tokenize", 1, self.tokenize),
            *(("batch", size, self.batch) for size in (1, BATCH)),
            *(("encode", size, self.encode) for size in (1, BATCH)),
            *(("search", size, self.search) for size in (1, BATCH)),
            ("respond", 1, self.respond),
            *(("bare", size, self.bare) for size in (1, BATCH)),
            *(("retrieve", size, self.retrieve) for size in (1, BATCH)),
        ]

    async def parse(self, part: slice) -> None:
        """Header, which is remembered from the request before, and body to a checked request."""
        for head, body in zip(self._heads[part], self._bodies[part], strict=True):
            read_head(head)
            parse_body(RetrieveRequest, body)

    async def admit(self, part: slice) -> None:
        """Predict and decide, while one query is run and another waits."""
        for _ in self._queries[part]:
            self._admission.admit(self._busy.forecast(CALLER, cached=False), TIMEOUT_MS / 1e3, cached=False)

    async def tokenize(self, part: slice) -> None:
        """Text to token ids."""
        for query in self._queries[part]:
            self._release.encoder.tokenize(query)

    async def batch(self, part: slice) -> None:
        """Through the queue to a worker thread, where nothing is done, and back."""
        deadline = perf_counter() + TIMEOUT_MS / 1e3
        await _all([partial(self._submit, item, deadline) for item in self._items[part]])

    async def encode(self, part: slice) -> None:
        """Token ids to embeddings."""
        self._release.encoder.encode(self._token_ids[part])

    async def search(self, part: slice) -> None:
        """Embeddings to ads."""
        self._release.ad_index.search(self._embeddings[part], self._wanted[part])

    async def respond(self, part: slice) -> None:
        """Ads to the body of the answer."""
        times = StageTimes(1e-4, 1e-4, 1e-3, 5e-4, 2e-3)
        for request, hits in zip(self._requests[part], self._hits[part], strict=True):
            to_json(answer_of(self._release, hits, {}, times, request_id=request.request_id or new_request_id()))

    async def bare(self, part: slice) -> None:
        """Tokenize, encode and search without a server."""
        answer_bare(self._release.encoder, self._release.ad_index, self._queries[part], self._wanted[part])

    async def retrieve(self, part: slice) -> None:
        """Everything between a request's body and its answer's."""
        origin = Origin(CALLER, perf_counter())
        await _all([partial(self._retriever.handle, body, origin) for body in self._bodies[part]])

    def _submit(self, item: Query, deadline: float, on_done: Callable[[Any], None]) -> None:
        self._idle.submit(item, deadline=deadline, on_done=on_done)

    def _item(self, number: int) -> Query:
        return Query(
            release=self._release,
            embedding_key=EmbeddingKey(self._release.model_version, self._queries[number]),
            token_ids=self._token_ids[number],
            embedding=None,
            wanted=self._wanted[number],
            fields=[],
            caller=CALLER,
            shared=False,
        )


async def _all(begins: Iterable[Begin]) -> None:
    """Begin all at once and wait until each has its outcome.

    Raises:
        RequestError: one of them failed.
    """
    loop = asyncio.get_running_loop()
    outcomes: list[asyncio.Future[Any]] = []
    for begin in begins:
        outcomes.append(loop.create_future())
        begin(outcomes[-1].set_result)
    for outcome in outcomes:
        found = await outcome
        if isinstance(found, RequestError):
            raise found


def _do_nothing(items: Sequence[Query], encoded: Callable[[], None]) -> tuple[list[Query], BatchCost]:
    encoded()
    return list(items), BatchCost([item.tokens for item in items], 0.0, len(items), 0.0)


def _wait_for(
    gate: threading.Event, items: Sequence[Query], encoded: Callable[[], None]
) -> tuple[list[Query], BatchCost]:
    gate.wait()
    return _do_nothing(items, encoded)
