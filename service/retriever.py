"""The online path, query to ads, as one straight line."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

from index.ad_index import SearchHits
from service.answer import to_json
from service.batcher import MicroBatcher
from service.errors import ClientGone
from service.metrics import Metrics, StageTimes
from service.release import Release
from service.schemas import RetrieveRequest


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker needs to know of a request."""

    token_ids: list[int]
    top_k: int


@dataclass(frozen=True, slots=True)
class Found:
    """One query's hits, and how its batch spent its time (seconds; instants of `perf_counter`)."""

    hits: SearchHits
    started_at: float
    encode_s: float
    search_s: float


class Retriever:
    """Answers requests from one release."""

    def __init__(self, release: Release, batcher: MicroBatcher[Job, Found], metrics: Metrics) -> None:
        self._release = release
        self._batcher = batcher
        self._metrics = metrics

    async def retrieve(
        self,
        request: RetrieveRequest,
        *,
        arrived: float,
        deadline: float,
        on_disconnect: Callable[[Callable[[], None]], None],
    ) -> bytes:
        """The ads for one query, as the body of the answer.

        Args:
            request: validated.
            arrived: when the request came in, in seconds of `perf_counter`.
            deadline: when the answer is worth nothing any more, on the same clock.
            on_disconnect: takes what to call when the client goes away.

        Raises:
            Overloaded: refused before anything was spent on it.
            DeadlineExceeded: the time budget ran out.
            ClientGone: `on_disconnect`'s callback was called.
            PipelineError: encoding or searching failed for this query.
        """
        self._batcher.admit()
        token_ids = self._release.encoder.tokenize(request.query)
        tokenized = perf_counter()
        future = self._batcher.submit(Job(token_ids, request.top_k), tokens=len(token_ids), deadline=deadline)
        on_disconnect(lambda: _give_up(future))
        found = await future
        times = StageTimes(
            tokenize=tokenized - arrived,
            queue=found.started_at - tokenized,
            encode=found.encode_s,
            search=found.search_s,
            total=perf_counter() - arrived,
        )
        self._metrics.answered(times, complete=len(found.hits.rows) == request.top_k)
        return to_json(request, self._release, found.hits, times)


def _give_up(future: "asyncio.Future[Found]") -> None:
    if not future.done():
        future.set_exception(ClientGone("the connection was closed"))


def make_pipeline(release: Release, metrics: Metrics) -> Callable[[Sequence[Job]], list[Found]]:
    """The function that a batch worker runs: encode all, then search all."""

    def run(jobs: Sequence[Job]) -> list[Found]:
        started = perf_counter()
        embeddings = release.encoder.encode([job.token_ids for job in jobs])
        encoded = perf_counter()
        hits = release.ad_index.search(embeddings, [job.top_k for job in jobs])
        searched = perf_counter()
        metrics.batch_ran([len(job.token_ids) for job in jobs])
        return [Found(one, started, encoded - started, searched - encoded) for one in hits]

    return run
