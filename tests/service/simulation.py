"""Hours of arrivals in a second or two: the real schedule and the real admission, with a clock that only jumps.

Costs are some twenty times those of a small encoder on a CPU, so that an hour has few enough arrivals.
"""

import heapq
import itertools
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np

from service.admission import Admission
from service.batch_queue import BatchPolicy
from service.cost import BatchCost
from service.errors import Overloaded
from service.schedule import Batch, Schedule

POLICY = BatchPolicy(max_batch_size=8, max_batch_tokens=1_024, max_queue_size=512)
RUN_S, TOKEN_S, SEARCH_S = 0.006, 0.0016, 0.008
"""What a batch takes: as a whole, for a padded token, for a query."""
NOISE = 0.1
LENGTHS = (4, 5, 5, 6, 6, 6, 7, 7, 8, 9, 11, 14, 20, 40)


@dataclass(eq=False)
class Query:
    """One request, and what became of it."""

    arrived: float
    caller: Hashable
    tokens: int
    deadline: float
    group: Hashable = "release"
    key: Hashable = None
    abandoned: bool = False
    predicted_s: float | None = None
    """None where it was refused."""
    own_ahead: int = 0
    batches_before: int = 0
    started: float | None = None
    answered: float | None = None
    """When its batch was done; None where it never was in one."""

    @property
    def in_time(self) -> bool:
        return self.answered is not None and self.answered <= self.deadline

    @property
    def waited_s(self) -> float:
        assert self.started is not None
        return self.started - self.arrived


@dataclass
class Simulation:
    """Runs arrivals through a schedule; `batches` are those it started, in order."""

    workers: int = 1
    policy: BatchPolicy = POLICY
    stall: tuple[float, float] = (np.inf, 0.0)
    """When a worker stands still in a batch, and for how many seconds."""
    admission: Admission | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        self.schedule: Schedule[Query] = Schedule(self.policy, self.workers)
        self.batches: list[Batch[Query]] = []
        self._noise = np.random.default_rng(self.seed)
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._numbers = itertools.count()
        self._waiting: dict[Hashable, int] = {}

    def run(self, queries: Iterable[Query]) -> float:
        """Serve all, in order of arrival; the time when the last event was over."""
        now = 0.0
        for query in sorted(queries, key=lambda query: query.arrived):
            self._pass(query.arrived)
            now = query.arrived
            self._arrive(query, now)
        while self._events:
            now = self._events[0][0]
            self._pass(now)
        return now

    def _pass(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            now, _, event = heapq.heappop(self._events)
            event(now)

    def _at(self, when: float, event: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), event))

    def _arrive(self, query: Query, now: float) -> None:
        forecast = self.schedule.forecast(query.caller, now, cached=False)
        if self.admission is not None:
            try:
                self.admission.admit(forecast, query.deadline - now, cached=False)
            except Overloaded:
                return
            self._at(query.deadline, partial(self._expire, query))
        query.predicted_s = forecast.predicted_s
        query.own_ahead = self._waiting.get(query.caller, 0)
        query.batches_before = len(self.batches)
        self._waiting[query.caller] = query.own_ahead + 1
        self.schedule.put(query)
        self._start_batches(now)

    def _start_batches(self, now: float) -> None:
        while self.schedule.running < self.workers and (batch := self.schedule.take(now)) is not None:
            number = len(self.batches)
            self.batches.append(batch)
            for query in batch.items:
                query.started = now
                query.batches_before = number - query.batches_before
                self._waiting[query.caller] -= 1
            lengths = [query.tokens for query in batch.items]
            noise = 1 + NOISE * self._noise.random()
            encode_s = noise * (RUN_S + TOKEN_S * max(lengths) * len(lengths))
            if now >= self.stall[0]:
                encode_s += self.stall[1]
                self.stall = (np.inf, 0.0)
            cost = BatchCost(lengths, encode_s, len(lengths), noise * SEARCH_S * len(lengths))
            self._at(now + cost.encode_s + cost.search_s, partial(self._end, batch, cost))

    def _end(self, batch: Batch[Query], cost: BatchCost, now: float) -> None:
        self.schedule.ended(batch)
        self.schedule.learn(cost)
        for query in batch.items:
            query.answered = now
            if not query.abandoned:
                query.abandoned = True
                self._learn(query, now)
        self._start_batches(now)

    def _expire(self, query: Query, now: float) -> None:
        if not query.abandoned:
            query.abandoned = True
            self._learn(query, now)

    def _learn(self, query: Query, now: float) -> None:
        if self.admission is not None and query.predicted_s is not None:
            self.admission.margin.learn(query.predicted_s, now - query.arrived)


def poisson(
    rate: float,
    seconds: float,
    *,
    caller: Hashable = "caller",
    budget_s: float = np.inf,
    seed: int = 0,
    start: float = 0,
) -> list[Query]:
    """Arrivals that know nothing of each other, with the lengths of real queries."""
    random = np.random.default_rng(seed)
    times = start + np.cumsum(random.exponential(1 / rate, int(rate * seconds)))
    lengths = random.choice(LENGTHS, len(times))
    return [
        Query(time, caller, length, time + budget_s)
        for time, length in zip(times.tolist(), lengths.tolist(), strict=True)
    ]


def bursts(rate: float, seconds: float, *, caller: Hashable, size: int, seed: int = 0) -> list[Query]:
    """The same rate, in bursts that come at once."""
    queries = poisson(rate, seconds, caller=caller, seed=seed)
    for number, query in enumerate(queries):
        query.arrived = queries[number - number % size].arrived
    return queries


def capacity() -> float:
    """Queries a second of one worker that always finds a full queue."""
    simulation = Simulation()
    queries = poisson(1e9, 2e-6)
    return len(queries) / simulation.run(queries)
