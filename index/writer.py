"""The one thread that changes ads: what is queued is recorded together, then made true in memory, then answered.

    submit ──> queue ──> one transaction for all that waits ──> commit ──> index in memory ──> answers

A sync of the disk takes milliseconds, so under load it is shared: the longer a commit takes, the more the next one
holds. While requests are being answered, a commit waits a moment for further changes, since each takes time from them.
Changes are made in the order in which they were submitted.
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from time import perf_counter, sleep
from typing import Protocol

from cores import give_way
from index.changes import Change, State
from index.errors import RecordError, UnknownAdError
from index.record import Record, Transaction
from index.record_reader import Readers
from index.snapshots import Snapshots

MOST_TOGETHER = 1_000
"""Changes after which a transaction takes no further submission: about 50 ms of work, for which others wait."""
SHARE_S = 0.05
"""How long a commit waits for changes to share it, while requests are being answered: by itself it takes 0.3 to 0.5 ms
of a core, a flip in it 0.1 ms."""
ENOUGH_TO_SHARE = 20
"""Changes that are worth a commit of their own, as those of a feed."""

logger = logging.getLogger(__name__)


class Target(Protocol):
    """What the changes are made to in memory."""

    def apply(self, states: Sequence[State]) -> None:
        """Make states true, in their order; called on the writer's thread."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a submission."""

    applied: int
    """How many of its changes hold now, those that did before included."""
    unknown: tuple[int, ...]
    """Positions of those that were to change an ad that there is not."""
    sequence: int
    """All of it, and all before it, is recorded up to this sequence number."""


@dataclass(frozen=True, slots=True)
class Commit:
    """One transaction, for whoever counts."""

    results: Counter[tuple[str, str]]
    """Changes by class and result: `applied`, `unchanged` or `unknown`."""
    sequence: int
    commit_s: float
    """How long the transaction took."""
    apply_s: float
    """And how long it then took until searches saw it."""


@dataclass(slots=True, eq=False)
class _Submission:
    changes: Sequence[Change]
    future: "Future[Outcome]" = field(default_factory=Future)


class AdWriter:
    """Owns a record, and the thread that writes it."""

    def __init__(
        self,
        record: Record,
        target: Target,
        on_commit: Callable[[Commit], None] = lambda _: None,
        *,
        is_busy: Callable[[], bool] = lambda: False,
        pause: Callable[[float], None] = sleep,
    ) -> None:
        """Start the thread.

        Args:
            record: as it is, `target` has all of it.
            target: the index in memory.
            on_commit: called on the thread after each transaction.
            is_busy: whether requests are being answered, from whom commits take time; called on the thread.
            pause: waits for some seconds.
        """
        self._record = record
        self._target = target
        self._on_commit = on_commit
        self._is_busy = is_busy
        self._pause = pause
        self.readers = Readers(record.path)
        """Readers of the record, for whoever wants one."""
        self._queue: SimpleQueue[_Submission | None] = SimpleQueue()
        self._closing = threading.Lock()
        self._closed = False
        self._fault: str | None = None
        self._forgotten = self._forgettable = 0
        self._thread = threading.Thread(target=self._run, name="ad-writer", daemon=True)
        self._thread.start()

    @property
    def sequence(self) -> int:
        """Of the last change."""
        return self._record.sequence

    def submit(self, changes: Sequence[Change]) -> "Future[Outcome]":
        """Make some changes, or none of them; the answer comes when they are durable, and searches see them.

        The future raises `RecordError` where they could not be recorded.
        """
        submission = _Submission(changes)
        with self._closing:  # so that nothing is queued behind the end
            if self._closed:
                submission.future.set_exception(RecordError(f"{self._record.path}: the record is closed"))
            else:
                self._queue.put(submission)
        return submission.future

    def forget_deletions(self) -> None:
        """Remove what is left of ads that all snapshots know to be deleted, some with each of the next transactions."""
        self._forgettable = Snapshots(self._record.path).known_to_all(self._record.sequence)

    def close(self) -> None:
        """Make the changes that are queued, then end the thread and close the record."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
        self._thread.join()
        self.readers.close()  # first, so that the record is the last to let go of its log
        self._record.close()

    def _run(self) -> None:
        give_way()
        while (first := self._queue.get()) is not None:
            if self._may_share(first):
                self._pause(SHARE_S)
            together, is_last = self._take_more(first)
            # Who waits no longer may have given up before the change was made, but not while it is.
            self._make([one for one in together if one.future.set_running_or_notify_cancel()])
            if is_last:
                return

    def _may_share(self, first: _Submission) -> bool:
        """Whether to wait for more changes: where what waits already is little, and not the last."""
        is_little = len(first.changes) + self._queue.qsize() < ENOUGH_TO_SHARE
        return is_little and not self._closed and self._is_busy()

    def _take_more(self, first: _Submission) -> tuple[list[_Submission], bool]:
        """All that waits, up to a bound; and whether the queue has ended with it."""
        together, count = [first], len(first.changes)
        while count < MOST_TOGETHER:
            try:
                submission = self._queue.get_nowait()
            except Empty:
                break
            if submission is None:
                return together, True
            together.append(submission)
            count += len(submission.changes)
        return together, False

    def _make(self, together: Sequence[_Submission]) -> None:
        """Record submissions, make them true in memory, and answer them."""
        try:
            outcomes = self._commit([submission.changes for submission in together])
        except RecordError as error:
            for submission in together:
                submission.future.set_exception(error)
        except Exception as error:  # this loop must survive whatever a change does
            if len(together) == 1 or self._fault is not None:
                logger.exception("changes could not be made")
                for submission in together:
                    submission.future.set_exception(error)
            else:  # one of them alone is to blame
                for submission in together:
                    self._make([submission])
        else:
            for submission, outcome in zip(together, outcomes, strict=True):
                submission.future.set_result(outcome)

    def _commit(self, submissions: Sequence[Sequence[Change]]) -> list[Outcome]:
        if self._fault is not None:
            raise RecordError(self._fault)
        if not submissions:
            return []
        started = perf_counter()
        results: Counter[tuple[str, str]] = Counter()
        states: list[State] = []
        made: list[tuple[int, tuple[int, ...]]] = []
        with self._record.transaction() as transaction:
            for changes in submissions:
                unknown = tuple(_make_each(transaction, changes, states, results))
                made.append((len(changes) - len(unknown), unknown))
            if self._forgotten < (forgettable := self._forgettable):
                self._forgotten = transaction.forget_deletions(self._forgotten, forgettable)
        committed = perf_counter()
        self._apply(states)
        sequence = self._record.sequence
        self._on_commit(Commit(results, sequence, committed - started, perf_counter() - committed))
        return [Outcome(applied, unknown, sequence) for applied, unknown in made]

    def _apply(self, states: Sequence[State]) -> None:
        """What is recorded but not in memory would come with the next start only, so nothing is taken any more."""
        try:
            self._target.apply(states)
        except Exception:
            self._fault = f"{self._record.path}: recorded changes could not be made in memory; restart the service"
            raise


def _make_each(
    transaction: Transaction, changes: Sequence[Change], states: list[State], results: Counter[tuple[str, str]]
) -> list[int]:
    """Make changes, adding to `states` what came of them and to `results` how many; gives positions of unknown ads."""
    unknown = []
    for position, change in enumerate(changes):
        kind = type(change).__name__
        try:
            state = transaction.make(change)
        except UnknownAdError:
            unknown.append(position)
            results[kind, "unknown"] += 1
            continue
        results[kind, "unchanged" if state is None else "applied"] += 1
        if state is not None:
            states.append(state)
    return unknown
