"""Dynamic micro-batching: many awaiting callers, a few worker threads, one queue between them.

    event loop                          worker threads
    submit ──> BatchQueue ──────────────> take, run(items) ─┐
    await future <── call_soon_threadsafe ── results ───────┘

An idle worker takes what is queued then; it never waits for a batch to fill. A worker runs the whole of its batch, so
there are no hand-offs between encoding and searching.
"""

import asyncio
import logging
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Generic, TypeVar

from service.batch_queue import BatchPolicy, BatchQueue
from service.errors import DeadlineExceeded, Overloaded, PipelineError, RequestError

Item = TypeVar("Item")
Result = TypeVar("Result")

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Ticket(Generic[Item, Result]):
    """One submitted item and its caller's future."""

    item: Item
    tokens: int
    deadline: float
    future: "asyncio.Future[Result]"
    submitted_at: float = field(default_factory=perf_counter)

    @property
    def abandoned(self) -> bool:
        """Whether the caller went away or was told that its deadline has passed."""
        return self.future.done()


class MicroBatcher(Generic[Item, Result]):
    """Runs submitted items in batches on its worker threads, from `start` to `stop`."""

    def __init__(self, run: Callable[[Sequence[Item]], list[Result]], policy: BatchPolicy, workers: int) -> None:
        """Prepare; nothing runs before `start`.

        Args:
            run: makes one result an item, in order; called from several threads at once.
            policy: limits of batches and queue.
            workers: threads.
        """
        self._run = run
        self._policy = policy
        self._queue: BatchQueue[Ticket[Item, Result]] = BatchQueue(policy)
        self._changed = threading.Condition()
        self._stopping = False
        self._running_batches = 0
        self._seconds_per_item = 0.0
        self._threads = [
            threading.Thread(target=self._work, name=f"batch-worker-{number}", daemon=True) for number in range(workers)
        ]

    @property
    def queued(self) -> int:
        """Items that wait for a worker."""
        return len(self._queue)

    @property
    def running_batches(self) -> int:
        """Batches that a worker is running."""
        return self._running_batches

    @property
    def alive(self) -> bool:
        """Whether all workers run."""
        return all(thread.is_alive() for thread in self._threads)

    def start(self) -> None:
        """Start the workers; called on the event loop that will await the futures."""
        self._loop = asyncio.get_running_loop()
        for thread in self._threads:
            thread.start()

    async def stop(self, timeout_s: float = 60.0) -> None:
        """Finish what is queued, then end the workers; one that is stuck is left behind after `timeout_s`."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            await asyncio.to_thread(thread.join, timeout_s)

    def admit(self) -> None:
        """Refuse at once where the queue is full, before anything is spent on the request.

        Raises:
            Overloaded: with the seconds after which the queue will have drained, as far as recent batches tell.
        """
        with self._changed:
            full = self._queue.full(perf_counter())
        if full:
            drained_s = len(self._queue) * self._seconds_per_item / len(self._threads)
            raise Overloaded(f"{len(self._queue)} queries are waiting already", max(1, math.ceil(drained_s)))

    def submit(self, item: Item, *, tokens: int, deadline: float) -> "asyncio.Future[Result]":
        """Queue an item that was admitted.

        Args:
            item: what `run` gets.
            tokens: its length, by which batches are limited.
            deadline: in seconds of `time.perf_counter`; after it the future raises and the item is dropped.

        Returns:
            Future of the result. Cancelling it gives the item up: it is dropped unencoded if no worker has it yet.
            It raises DeadlineExceeded at the deadline, PipelineError if `run` fails for this item alone.
        """
        ticket: Ticket[Item, Result] = Ticket(item, tokens, deadline, self._loop.create_future())
        timer = self._loop.call_later(max(0.0, deadline - ticket.submitted_at), _expire, ticket.future)
        ticket.future.add_done_callback(lambda _: timer.cancel())
        with self._changed:
            self._queue.put(ticket)
            self._changed.notify()
        return ticket.future

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._stopping)
                batch = self._queue.take(perf_counter())
                if not batch:
                    if self._stopping:
                        return
                    continue
                self._running_batches += 1
            started = perf_counter()
            outcomes = self._outcomes(batch)
            with self._changed:
                self._running_batches -= 1
                share = (perf_counter() - started) / len(batch)
                self._seconds_per_item += 0.1 * (share - self._seconds_per_item)
            self._loop.call_soon_threadsafe(_deliver, batch, outcomes)

    def _outcomes(self, batch: list[Ticket[Item, Result]]) -> "list[Result | RequestError]":
        """Run a batch; where it fails, halve it until the failing items stand alone, so that no other suffers."""
        try:
            results = self._run([ticket.item for ticket in batch])
            return [result for _, result in zip(batch, results, strict=True)]
        except Exception as error:  # this loop must survive whatever a batch does
            if len(batch) == 1:
                logger.exception("a query failed")
                return [PipelineError(f"{type(error).__name__} while encoding or searching")]
        half = len(batch) // 2
        return self._outcomes(batch[:half]) + self._outcomes(batch[half:])


def _expire(future: "asyncio.Future[Result]") -> None:
    if not future.done():
        future.set_exception(DeadlineExceeded("no answer within the time budget"))


def _deliver(batch: "list[Ticket[Item, Result]]", outcomes: "list[Result | RequestError]") -> None:
    for ticket, outcome in zip(batch, outcomes, strict=True):
        if ticket.future.done():
            continue
        if isinstance(outcome, RequestError):
            ticket.future.set_exception(outcome)
        else:
            ticket.future.set_result(outcome)
