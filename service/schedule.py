"""What is run next and what a newcomer would find: queue, learned costs and running batches, on any clock.

Pure, so that hours of arrivals can be simulated in a second; `service.batcher` adds the threads.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from service.batch_queue import BatchPolicy, BatchQueue, Waiting
from service.cost import BatchCost, CostModel

TYPICAL_TOKENS = 8
"""Of a query that is not tokenised yet: queries have five words."""
GAIN_OF_BATCH_SIZE = 0.1

W = TypeVar("W", bound=Waiting)


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a newcomer would find."""

    full: bool
    """Its caller's share of the queue is used up."""
    idle: bool
    """It would be served at once."""
    predicted_s: float
    """Seconds until its answer."""


@dataclass(slots=True, eq=False)
class Batch(Generic[W]):
    """Queries that are run together."""

    items: list[W]
    started_at: float
    predicted_s: float
    encoding: bool
    """Whether it needs the encoder, still."""


class Schedule(Generic[W]):
    """Decides for a number of workers. Not thread-safe: its owner holds the lock; `now` is in seconds of its clock."""

    def __init__(self, policy: BatchPolicy, workers: int, batches_in_flight: int | None = None) -> None:
        """Start with an empty queue.

        Args:
            policy: limits of batches and queue.
            workers: batches that can be run at once.
            batches_in_flight: of these, how many can be encoded at once, where a device does that: queries wait in
                the queue, where a batch still grows, rather than for a place on the device.
        """
        self._policy = policy
        self._workers = workers
        self._encoders = workers if batches_in_flight is None else min(workers, batches_in_flight)
        self._queue: BatchQueue[W] = BatchQueue(policy)
        self._cost = CostModel()
        self._batch_size = 1.0
        self._running: list[Batch[W]] = []

    def __len__(self) -> int:
        """How many wait."""
        return len(self._queue)

    @property
    def running(self) -> int:
        """Batches that are being run."""
        return len(self._running)

    def adapt(self, policy: BatchPolicy) -> None:
        """Go by other limits from the next batch on."""
        self._policy = policy
        self._queue.adapt(policy)

    def oldest(self) -> W | None:
        """One that waits, the head of the line of the caller that has its turn next."""
        return self._queue.oldest()

    def forecast(self, caller: Hashable, now: float, *, cached: bool) -> Forecast:
        """What a newcomer of this caller would find."""
        own_s = self._cost.batch_s(1, 0 if cached else TYPICAL_TOKENS)
        if not self._running and not len(self._queue):
            return Forecast(full=False, idle=True, predicted_s=own_s)
        full = self._queue.full(caller, now)
        ahead = self._queue.ahead_of(caller)
        if not ahead.count and len(self._running) < self._workers and (cached or self._encoder_free()):
            return Forecast(full, idle=True, predicted_s=own_s)
        wait_s = self._left_s(now)
        batch_size = max(self._batch_size, min(ahead.count, self._policy.max_batch_size) / 2)
        encode_s, search_s = self._cost.backlog_s(ahead.count, ahead.tokens, batch_size)
        wait_s += encode_s / self._encoders + search_s / self._workers
        return Forecast(full, idle=False, predicted_s=wait_s + own_s)

    def put(self, item: W) -> None:
        """Let one that was admitted wait."""
        self._queue.put(item)

    def discard(self, item: W) -> None:
        """Let one that nobody waits for any more give up its place; nothing where it has none."""
        self._queue.discard(item)

    def take(self, now: float) -> Batch[W] | None:
        """Start the next batch, if any; whoever runs it calls `ended`."""
        if not len(self._queue):
            return None
        encoding: set[Hashable] = set()
        if self._running:
            batches = (batch for batch in self._running if batch.encoding)
            encoding = {item.key for batch in batches for item in batch.items if item.tokens} - {None}
        free = self._encoder_free()
        items = self._queue.take(now, least_s=self._least_s(), encoding=encoding, encoder_free=free)
        if not items:
            return None
        lengths = [item.tokens for item in items if item.tokens]
        self._batch_size += GAIN_OF_BATCH_SIZE * (len(items) - self._batch_size)
        predicted_s = self._cost.batch_s(len(items), max(lengths, default=0) * len(lengths))
        batch = Batch(items, now, predicted_s, encoding=bool(lengths))
        self._running.append(batch)
        return batch

    def encoded(self, batch: Batch[W]) -> None:
        """Take note that a batch that is still run has left the encoder to others."""
        batch.encoding = False

    def ended(self, batch: Batch[W]) -> None:
        """Take note that a batch is run no more."""
        self._running.remove(batch)

    def learn(self, cost: BatchCost) -> None:
        """Take what a batch cost into account when the next ones are predicted."""
        self._cost.learn(cost)

    def _left_s(self, now: float) -> float:
        """How long what runs keeps others waiting; a batch that is still encoded keeps them from the encoder."""
        seconds = 0.0
        for batch in self._running:
            left_s = max(0.0, batch.started_at + batch.predicted_s - now)
            seconds += left_s / (self._encoders if batch.encoding else self._workers)
        return seconds

    def _encoder_free(self) -> bool:
        return len(self._running) < self._encoders or sum(batch.encoding for batch in self._running) < self._encoders

    def _least_s(self) -> float:
        """What an answer takes at least; a lone query is tried whatever is predicted, or nothing better is learned."""
        count = min(len(self._queue), self._policy.max_batch_size)
        return self._cost.batch_s(count, TYPICAL_TOKENS * count) if count > 1 else 0.0
