"""Dynamic micro-batching: many waiting callers, a few worker threads, one queue between them.

    event loop                              worker threads
    submit ──> BatchQueue ────────────────> take, run(items) ─┐
    on_done <── call_soon_threadsafe ────── outcomes ─────────┘
       └─ a few items on an idle batcher are run by the loop itself: no hand-off, no waking of a thread

An idle worker takes what is queued then; it never waits for a batch to fill. A worker runs the whole of its batch, so
there are no hand-offs between encoding and searching. Where a device encodes, a worker takes its batch only when the
device has a place for it, and others search meanwhile.
"""

import asyncio
import itertools
import logging
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Generic, Protocol, TypeVar

from service.batch_queue import BatchPolicy
from service.cost import BatchCost
from service.device_faults import DeviceLostError
from service.errors import DeadlineExceeded, PipelineError, RequestError
from service.schedule import Batch, Forecast, Schedule

FEW = 3
"""Items that the loop runs itself: 4 ms at most, in which it does nothing else."""
POLLING_S = 0.0002
"""After a lone answer. A sleeping core takes 0.05 ms to wake, and who asks one query after the other is back sooner."""

logger = logging.getLogger(__name__)


class Batchable(Protocol):
    """What can be submitted; `service.batch_queue.Waiting` says what queue and batches make of it."""

    @property
    def tokens(self) -> int:
        """What is to be encoded."""

    @property
    def caller(self) -> Hashable:
        """Who asks."""

    @property
    def group(self) -> Hashable:
        """What must be alike within a batch."""

    @property
    def key(self) -> Hashable:
        """What it is encoded from, or None where it is encoded for itself alone."""


Item = TypeVar("Item", bound=Batchable)
Result = TypeVar("Result")


@dataclass(slots=True, eq=False)
class Ticket(Generic[Item, Result]):
    """One submitted item and who is to hear of its outcome."""

    item: Item
    deadline: float
    on_done: "Callable[[Result | RequestError], None]"
    tokens: int
    caller: Hashable
    group: Hashable
    key: Hashable
    submitted_at: float = field(default_factory=perf_counter)
    abandoned: bool = False
    """Whether it has an outcome already: nobody waits for it any more."""
    timer: asyncio.TimerHandle | None = None
    give_back: "Callable[[Ticket[Item, Result]], None] | None" = None
    """Frees its place in the queue, if it still has one."""

    def resolve(self, outcome: "Result | RequestError") -> None:
        """Report the first outcome, and no other; called on the event loop."""
        if self.abandoned:
            return
        self.abandoned = True
        if self.timer is not None:
            self.timer.cancel()
        if isinstance(outcome, RequestError) and self.give_back is not None:
            self.give_back(self)
        self.on_done(outcome)

    def expire(self) -> None:
        """Report that the deadline has come."""
        self.resolve(DeadlineExceeded("no answer within the time budget"))


@dataclass(frozen=True, slots=True)
class WorkerState:
    """What a worker is doing."""

    name: str
    alive: bool
    busy_since: float | None
    """When it started its batch, in seconds of `perf_counter`; None while it waits for one."""


class _Worker(Generic[Item, Result]):
    """A thread and its batch."""

    def __init__(self, name: str, work: "Callable[[_Worker[Item, Result]], None]") -> None:
        self.batch: Batch[Ticket[Item, Result]] | None = None
        self.retired = False
        self.thread = threading.Thread(target=work, args=(self,), name=name, daemon=True)


class MicroBatcher(Generic[Item, Result]):
    """Runs submitted items in batches on its worker threads, from `start` to `stop`."""

    def __init__(
        self,
        run: Callable[[Sequence[Item], Callable[[], None]], tuple[list[Result], BatchCost]],
        policy: BatchPolicy,
        workers: int,
        *,
        batches_in_flight: int | None = None,
        run_few_on_loop: bool = False,
        on_batch: Callable[[Hashable, BatchCost], None] = lambda *_: None,
        on_failure: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        """Prepare; nothing runs before `start`.

        Args:
            run: makes one result an item, in order, and says what that took; called from several threads at once. It
                calls its second argument when the items are encoded.
            policy: limits of batches and queue.
            workers: threads.
            batches_in_flight: how many batches may be encoded at once, where that is less than the workers could.
            run_few_on_loop: have the event loop run a few items itself when nothing else is queued or running.
            on_batch: hears the group and the cost of each run that succeeded, when its outcomes are on their way;
                from several threads.
            on_failure: hears why a run failed, that of a part of a batch too; likewise.
        """
        self._run = run
        self._schedule: Schedule[Ticket[Item, Result]] = Schedule(policy, workers, batches_in_flight)
        self._frees_encoder = batches_in_flight is not None
        self._changed = threading.Condition()
        self._stopping = False
        self._run_few_on_loop = run_few_on_loop
        self._is_loops_turn = False
        self._unarmed: list[Ticket[Item, Result]] = []
        """Submitted in the loop's turn; most are answered before a timer for their deadline would pay."""
        self._on_batch = on_batch
        self._on_failure = on_failure
        self._numbers = itertools.count()
        self._workers = [self._new_worker() for _ in range(workers)]

    @property
    def queued(self) -> int:
        """Items that wait for a worker."""
        return len(self._schedule)

    @property
    def oldest_s(self) -> float:
        """For how long the next item has been waiting; 0 when there is none."""
        with self._changed:
            oldest = self._schedule.oldest()
        return perf_counter() - oldest.submitted_at if oldest else 0.0

    @property
    def running_batches(self) -> int:
        """Batches that are being run."""
        return self._schedule.running

    @property
    def is_busy(self) -> bool:
        """Whether there is anything to do now; from any thread."""
        return self.running_batches > 0 or self.queued > 0

    def worker_states(self) -> list[WorkerState]:
        """What each worker is doing now."""
        with self._changed:
            return [
                WorkerState(
                    worker.thread.name, worker.thread.is_alive(), worker.batch.started_at if worker.batch else None
                )
                for worker in self._workers
            ]

    def replace(self, name: str) -> None:
        """Put a fresh thread in the place of a worker that is dead or stuck; what it was running fails."""
        with self._changed:
            [worker] = [worker for worker in self._workers if worker.thread.name == name]
            worker.retired = True
            batch, worker.batch = worker.batch, None
            if batch is not None:
                self._schedule.ended(batch)
            self._workers[self._workers.index(worker)] = fresh = self._new_worker()
            fresh.thread.start()
            self._changed.notify_all()  # lest it be the retired one that is told of the next item
        if batch is not None:
            failed = [PipelineError("the worker that ran this query is stuck") for _ in batch.items]
            self._loop.call_soon_threadsafe(_deliver, batch.items, failed)

    def start(self) -> None:
        """Start the workers; called on the event loop that will hear of the outcomes."""
        self._loop = asyncio.get_running_loop()
        for worker in self._workers:
            worker.thread.start()

    async def stop(self, timeout_s: float = 60.0) -> None:
        """Finish what is queued, then end the workers; one that is stuck is left behind after `timeout_s`."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for worker in self._workers:
            await asyncio.to_thread(worker.thread.join, timeout_s)

    def learn(self, cost: BatchCost) -> None:
        """Take what a batch cost into account when the next ones are predicted."""
        with self._changed:
            self._schedule.learn(cost)

    def adapt(self, policy: BatchPolicy) -> None:
        """Go by other limits from the next batch on."""
        with self._changed:
            self._schedule.adapt(policy)

    def forecast(self, caller: Hashable, *, cached: bool) -> Forecast:
        """What a newcomer of this caller would find now."""
        with self._changed:
            return self._schedule.forecast(caller, perf_counter(), cached=cached)

    def submit(
        self, item: Item, *, deadline: float, on_done: "Callable[[Result | RequestError], None]"
    ) -> Ticket[Item, Result]:
        """Queue an item that was admitted.

        Args:
            item: what `run` gets.
            deadline: in seconds of `time.perf_counter`; then the outcome is DeadlineExceeded and the item is dropped.
            on_done: called on the event loop with the result, with DeadlineExceeded, or with PipelineError if `run`
                fails for this item alone; never before `submit` has returned.

        Returns:
            The ticket; resolving it gives the item up: it is dropped unencoded if no worker has it yet.
        """
        ticket: Ticket[Item, Result] = Ticket(item, deadline, on_done, item.tokens, item.caller, item.group, item.key)
        ticket.give_back = self._give_back
        with self._changed:
            idle = not len(self._schedule) and not self._schedule.running
            self._schedule.put(ticket)
            if self._run_few_on_loop and idle:
                self._loops_turn()
            elif not self._is_loops_turn:
                self._changed.notify()
        if self._is_loops_turn:
            self._unarmed.append(ticket)
        else:
            self._arm(ticket)
        return ticket

    def _loops_turn(self) -> None:
        """Have the loop run what is queued, after this turn of it: so what came in with it is in the queue by then."""
        self._is_loops_turn = True
        self._loop.call_soon(self._work_on_loop)

    def _give_back(self, ticket: Ticket[Item, Result]) -> None:
        with self._changed:
            self._schedule.discard(ticket)

    def _arm(self, ticket: Ticket[Item, Result]) -> None:
        """Answer it at its deadline, if nothing else does."""
        if not ticket.abandoned:
            ticket.timer = self._loop.call_later(max(0.0, ticket.deadline - perf_counter()), ticket.expire)

    def _new_worker(self) -> _Worker[Item, Result]:
        return _Worker(f"batch-worker-{next(self._numbers)}", self._work)

    def _work_on_loop(self) -> None:
        """Run a few items here; where many have come meanwhile, leave all of them to a worker."""
        self._is_loops_turn = False
        with self._changed:
            few = len(self._schedule) <= FEW and not self._schedule.running
            batch = self._schedule.take(perf_counter()) if few else None
            if not few:
                self._changed.notify()
        if batch is not None:
            self._run_here(batch)
        for ticket in self._unarmed:
            self._arm(ticket)
        self._unarmed.clear()
        if few and len(self._schedule):  # of another length
            self._loops_turn()

    def _run_here(self, batch: Batch[Ticket[Item, Result]]) -> None:
        outcomes, costs = self._outcomes(batch.items, partial(self._encoded, batch))
        with self._changed:
            self._schedule.ended(batch)
        _deliver(batch.items, outcomes)
        self._report(batch, costs)
        self._poll_until = perf_counter() + POLLING_S
        self._poll()

    def _poll(self) -> None:
        """Keep the loop turning for a moment: a caller that asks again at once need not wait for a core to wake up."""
        if perf_counter() < self._poll_until and not len(self._schedule):
            self._loop.call_soon(self._poll)

    def _work(self, worker: _Worker[Item, Result]) -> None:
        while self._work_once(worker):  # a batch is no variable here: an idle worker would keep its release in memory
            pass

    def _work_once(self, worker: _Worker[Item, Result]) -> bool:
        """Run a batch; False where the worker is to end."""
        batch = self._next_batch(worker)
        if batch is None:
            return False
        outcomes, costs = self._outcomes(batch.items, partial(self._encoded, batch))
        with self._changed:
            if worker.retired:  # its batch was answered meanwhile, and what it cost tells of the fault alone
                return False
            worker.batch = None
            self._schedule.ended(batch)
            if len(self._schedule):  # those that waited for an embedding of this batch
                self._changed.notify_all()
        self._loop.call_soon_threadsafe(_deliver, batch.items, outcomes)
        self._report(batch, costs)
        return True

    def _next_batch(self, worker: _Worker[Item, Result]) -> Batch[Ticket[Item, Result]] | None:
        """Wait for it; None where the worker is to end."""
        with self._changed:
            while not worker.retired:
                if (batch := self._schedule.take(perf_counter())) is not None:
                    worker.batch = batch
                    return batch
                if self._stopping and not len(self._schedule):
                    break
                self._changed.wait()
        return None

    def _encoded(self, batch: Batch[Ticket[Item, Result]]) -> None:
        """Let the next batch be encoded while this one is searched for."""
        if self._frees_encoder:
            with self._changed:
                self._schedule.encoded(batch)
                self._changed.notify()

    def _outcomes(
        self, batch: list[Ticket[Item, Result]], encoded: Callable[[], None]
    ) -> "tuple[list[Result | RequestError], list[BatchCost]]":
        """Run a batch; where it fails, halve it until the failing items stand alone, so that no other suffers."""
        try:
            results, cost = self._run([ticket.item for ticket in batch], encoded)
            return [result for _, result in zip(batch, results, strict=True)], [cost]
        except Exception as error:  # this loop must survive whatever a batch does
            self._on_failure(error)
            if len(batch) == 1 or isinstance(error, DeviceLostError):  # which no part of a batch survives either
                logger.exception("a query failed" if len(batch) == 1 else "a batch failed")
                return [PipelineError(f"{type(error).__name__} while encoding or searching") for _ in batch], []
        half = len(batch) // 2
        first, second = self._outcomes(batch[:half], encoded), self._outcomes(batch[half:], encoded)
        return first[0] + second[0], first[1] + second[1]

    def _report(self, batch: Batch[Ticket[Item, Result]], costs: list[BatchCost]) -> None:
        for cost in costs:
            self.learn(cost)
            self._on_batch(batch.items[0].group, cost)


def _deliver(batch: "list[Ticket[Item, Result]]", outcomes: "Sequence[Result | RequestError]") -> None:
    now = perf_counter()
    for ticket, outcome in zip(batch, outcomes, strict=True):
        try:
            if now > ticket.deadline and not isinstance(outcome, RequestError):
                ticket.expire()  # the loop was busy with this very batch when its timer should have fired
            ticket.resolve(outcome)
        except Exception:  # whatever one caller does with its outcome, the others get theirs
            logger.exception("an outcome could not be delivered")
