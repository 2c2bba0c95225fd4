"""Which queries go into the next batch: pure rules without threads, clock or tokens.

    put ──> [ oldest … newest ] ──take──> batch
                   └─ those nobody waits for any more are dropped here, unencoded

Nothing is sealed before a worker can start it, so batches grow only because work is in progress.
"""

from collections import deque
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Waiting(Protocol):
    """A query in the queue."""

    @property
    def tokens(self) -> int:
        """Its length, special tokens included."""

    @property
    def deadline(self) -> float:
        """When its answer is worth nothing any more, in seconds of the queue's clock."""

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for it any more."""


W = TypeVar("W", bound=Waiting)


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """Limits of one batch and of the queue."""

    max_batch_size: int
    max_batch_tokens: int
    """Most tokens after padding, that is longest × count; a single longer query still goes alone."""
    max_queue_size: int


class BatchQueue(Generic[W]):
    """First in, first out, bounded. Not thread-safe: its owner holds the lock."""

    def __init__(self, policy: BatchPolicy) -> None:
        self._policy = policy
        self._waiting: deque[W] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether one more must be refused."""
        return len(self._waiting) >= self._policy.max_queue_size

    def put(self, item: W) -> None:
        """Append the newest; the caller has asked `full`."""
        self._waiting.append(item)

    def take(self, now: float) -> list[W]:
        """Remove and return the next batch, oldest first; empty when nobody is waiting.

        Abandoned and expired queries are dropped on the way. The batch ends at the first query that would take it
        over a limit, so that no query is ever overtaken.
        """
        batch: list[W] = []
        longest = 0
        while self._waiting and len(batch) < self._policy.max_batch_size:
            item = self._waiting[0]
            if not item.abandoned and item.deadline > now:
                longest = max(longest, item.tokens)
                if batch and longest * (len(batch) + 1) > self._policy.max_batch_tokens:
                    break
                batch.append(item)
            self._waiting.popleft()
        return batch
