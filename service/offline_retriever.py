"""Many queries of a caller who can wait, answered in the low lane.

    parse → for each window: check and tokenise → sort by length → encode, search, serialise → lines, in order

Everything that takes time runs in the lane, in jobs of a few queries; the event loop only passes lines on.
"""

import asyncio
import itertools
import logging
import math
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import TypeVar

import numpy as np
import orjson
from pydantic import ValidationError

from service.answer import StageTimes, answer_of, new_request_id, to_json
from service.errors import DeadlineExceeded, InvalidRequestError, Overloaded, PipelineError, RequestError
from service.lane_metrics import LaneMetrics
from service.low_lane import LowLane, breathe
from service.release import Release
from service.schemas import OfflineQuery, OfflineRequest, RetrieveRequest
from service.validation import parse_body, refusal_of

T = TypeVar("T")

QUERIES_A_JOB = 8
"""Encoded together, and the most after which another job of the lane has its turn."""
WINDOW = 64
"""Queries that are sorted by length, so that those encoded together need little padding; lines wait for as many."""

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Place:
    """The right to run, of which there are a few."""

    remaining: int = 0
    """Queries without a line."""


@dataclass(frozen=True, slots=True)
class _Tokenized:
    position: int
    request: RetrieveRequest
    token_ids: list[int]
    tokenize_s: float


class OfflineRetriever:
    """Answers requests of many queries, each from one release."""

    def __init__(self, lane: LowLane, metrics: LaneMetrics, max_requests: int) -> None:
        self._lane = lane
        self._metrics = metrics
        self._max_requests = max_requests
        self._places: list[Place] = []
        self._seconds_per_query = 0.0

    def require_place(self) -> None:
        """Refuse a request whose body need not be read.

        Raises:
            Overloaded: all are taken; with the seconds after which one should be free, as far as recent work tells.
        """
        if len(self._places) < self._max_requests:
            return
        first_done = min((place.remaining for place in self._places), default=0)
        wait_s = first_done * self._seconds_per_query
        raise Overloaded(f"{len(self._places)} requests of many queries are running already", max(1, math.ceil(wait_s)))

    def take_place(self) -> Place:
        """Take a place, for `give_back`.

        Raises:
            Overloaded: as above.
        """
        self.require_place()
        self._places.append(place := Place())
        return place

    def give_back(self, place: Place) -> None:
        """Let the next request have the place."""
        self._places.remove(place)

    async def parse(self, body: bytes) -> OfflineRequest:
        """Check a body, less its queries.

        Raises:
            InvalidJsonError: it is not a JSON document.
            InvalidRequestError: a field is wrong.
        """
        return await self._lane.run(partial(parse_body, OfflineRequest, body))

    async def lines(
        self, release: Release, wanted: OfflineRequest, place: Place, arrived: float
    ) -> AsyncIterator[bytes]:
        """One line a query, in the order of the queries; each item is the lines that became ready together.

        Args:
            release: what answers all of them.
            wanted: as parsed.
            place: of this request; told how much is left.
            arrived: when the request came in, in seconds of `perf_counter`.
        """
        deadline = math.inf if wanted.timeout_ms is None else arrived + wanted.timeout_ms / 1e3
        work = _Work(release, wanted, arrived, self._metrics)
        lines: dict[int, bytes] = {}
        done, count = 0, len(wanted.queries)
        place.remaining = count
        try:
            async for more in self._answers(work, deadline):
                lines |= more
                ready = list(itertools.takewhile(lines.__contains__, range(done, count)))
                done += len(ready)
                place.remaining = count - done
                if ready:
                    yield b"".join(map(lines.pop, ready))
        except DeadlineExceeded as error:
            left = [position for position in range(done, count) if position not in lines]
            self._metrics.offline_queries(error.problem, len(left))
            lines |= {position: _problem_line(position, error) for position in left}
            place.remaining = 0
            yield b"".join(map(lines.pop, range(done, count)))

    async def _answers(self, work: "_Work", deadline: float) -> "AsyncIterator[dict[int, bytes]]":
        """Lines by position, as they become ready.

        Raises:
            DeadlineExceeded: there is no time for the rest.
        """
        for window in _cut(range(len(work.wanted.queries)), WINDOW):
            tokenized: list[_Tokenized] = []
            for positions in _cut(window, QUERIES_A_JOB):
                found, wrong = await self._run(partial(work.tokenize, positions), deadline)
                tokenized += found
                if wrong:
                    yield wrong
            tokenized.sort(key=lambda query: len(query.token_ids))
            for batch in _cut(tokenized, QUERIES_A_JOB):
                started = perf_counter()
                yield await self._run(partial(work.answer, batch), deadline)
                self._took(perf_counter() - started, len(batch))

    async def _run(self, job: Callable[[], T], deadline: float) -> T:
        try:
            async with asyncio.timeout(None if deadline == math.inf else deadline - perf_counter()):
                return await self._lane.run(job)
        except TimeoutError as error:
            raise DeadlineExceeded("the time budget was spent before this query's turn") from error

    def _took(self, seconds: float, queries: int) -> None:
        self._seconds_per_query += 0.1 * (seconds / queries - self._seconds_per_query)


@dataclass(frozen=True, slots=True)
class _Work:
    """One request's jobs for the low lane."""

    release: Release
    wanted: OfflineRequest
    arrived: float
    metrics: LaneMetrics

    def tokenize(self, positions: Sequence[int]) -> tuple[list[_Tokenized], dict[int, bytes]]:
        """Check and tokenise some queries; lines for those that are wrong."""
        tokenized, wrong = [], {}
        for position in positions:
            started = perf_counter()
            try:
                request = self._request(position)
            except InvalidRequestError as error:
                self.metrics.offline_queries(error.problem)
                wrong[position] = _problem_line(position, error)
                continue
            token_ids = self.release.encoder.tokenize(request.query)
            tokenized.append(_Tokenized(position, request, token_ids, perf_counter() - started))
            breathe()
        return tokenized, wrong

    def _request(self, position: int) -> RetrieveRequest:
        raw = self.wanted.queries[position]
        if not isinstance(raw, str | dict):
            message = f"expected a string or an object, found {type(raw).__name__}"
            raise InvalidRequestError(f"query: {message}", [{"field": "query", "message": message}])
        try:
            query = OfflineQuery.model_validate({"query": raw} if isinstance(raw, str) else raw)
        except ValidationError as error:
            raise refusal_of(error) from error
        return RetrieveRequest.model_construct(
            query=query.query,
            request_id=query.request_id or new_request_id(),
            top_k=self.wanted.top_k,
            fields=self.wanted.fields,
            filters=self.wanted.filters,
        )

    def answer(self, batch: Sequence[_Tokenized]) -> dict[int, bytes]:
        """Encode and search some queries, and write their lines."""
        try:
            lines = self._lines(batch)
        except Exception as error:  # whatever one query does, the others get their lines
            if len(batch) > 1:
                return {position: line for query in batch for position, line in self.answer([query]).items()}
            logger.exception("a query of many failed")
            problem = PipelineError(f"{type(error).__name__} while encoding or searching")
            problem.request_id = batch[0].request.request_id
            self.metrics.offline_queries(problem.problem)
            return {batch[0].position: _problem_line(batch[0].position, problem)}
        self.metrics.offline_queries("ok", len(batch))
        return lines

    def _lines(self, batch: Sequence[_Tokenized]) -> dict[int, bytes]:
        """Encode together, then search and write one by one: a search may keep one of another breadth waiting."""
        started = perf_counter()
        embeddings = self.release.encoder.encode([query.token_ids for query in batch])
        encode_s = perf_counter() - started
        lines = {}
        for query, embedding in zip(batch, embeddings, strict=True):
            breathe()
            searching = perf_counter()
            hits = self.release.ad_index.search(
                embedding[np.newaxis], [query.request.wanted(query.request.request_id or "")]
            )[0]
            searched = perf_counter()
            times = StageTimes(
                tokenize=query.tokenize_s,
                queue=started - self.arrived - query.tokenize_s,
                encode=encode_s,
                search=searched - searching,
                total=searched - self.arrived,
            )
            columns = {name: hits.ads.field(name, hits.rows) for name in query.request.fields}
            request_id = query.request.request_id or new_request_id()
            answer = to_json(answer_of(self.release, hits, columns, times, request_id=request_id))
            lines[query.position] = b'{"position":%d,%b\n' % (query.position, answer[1:])
        return lines


def _problem_line(position: int, error: RequestError) -> bytes:
    document = {"type": error.problem, "title": error.title, "status": error.status, "detail": str(error)}
    return orjson.dumps({"position": position, **document, **error.details()}) + b"\n"


def _cut(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
