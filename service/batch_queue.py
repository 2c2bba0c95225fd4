"""Which queries go into the next batch: pure rules without threads, clock or tokens.

    put ──> [ oldest … newest ] ──take──> batch
                   └─ those nobody waits for any more are dropped here, unencoded

Nothing is sealed before a worker can start it, so batches grow only because work is in progress, and of what has
gathered by then the queries of like length go together.
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


PADDING_TOKENS = 2
PADDING_SHARE = 0.2
"""How much padding one more query may cause: a few tokens, or a share of its own length.

On a CPU every padded token costs as much as a real one, so what a mixed batch saves in calls it loses in padding:
docs/experiments.md, "batch forming".
"""


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """Limits of one batch and of the queue."""

    max_batch_size: int
    max_batch_tokens: int
    """Most tokens after padding, that is longest × count; a single longer query still goes alone."""
    max_queue_size: int


class BatchQueue(Generic[W]):
    """Bounded, oldest first, grouped by length. Not thread-safe: its owner holds the lock."""

    def __init__(self, policy: BatchPolicy) -> None:
        self._policy = policy
        self._waiting: deque[W] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def full(self, now: float) -> bool:
        """Whether one more must be refused; what nobody waits for any more is dropped before that is said."""
        if len(self._waiting) >= self._policy.max_queue_size:
            self._waiting = deque(item for item in self._waiting if _alive(item, now))
        return len(self._waiting) >= self._policy.max_queue_size

    def put(self, item: W) -> None:
        """Append the newest; the caller has asked whether the queue is full."""
        self._waiting.append(item)

    def take(self, now: float) -> list[W]:
        """Remove and return the next batch; empty when nobody is waiting.

        The oldest query is always in it, so none waits for more than the batches of those before it. The others join in
        order of age, those that would cause too much padding being passed over until they are the oldest themselves.
        Abandoned and expired queries are dropped on the way.
        """
        batch: list[W] = []
        passed_over: list[W] = []
        longest = 0
        while self._waiting and len(batch) < self._policy.max_batch_size:
            item = self._waiting.popleft()
            if not _alive(item, now):
                continue
            if not batch or self._fits(len(batch), longest, item.tokens):
                batch.append(item)
                longest = max(longest, item.tokens)
            else:
                passed_over.append(item)
        self._waiting.extendleft(reversed(passed_over))
        return batch

    def _fits(self, count: int, longest: int, tokens: int) -> bool:
        """Whether a query may join `count` others: the padding it gets, or gives to them, is small."""
        padding = longest - tokens if tokens <= longest else count * (tokens - longest)
        allowed = max(PADDING_TOKENS, tokens * PADDING_SHARE)
        return padding <= allowed and max(longest, tokens) * (count + 1) <= self._policy.max_batch_tokens


def _alive(item: Waiting, now: float) -> bool:
    return not item.abandoned and item.deadline > now
