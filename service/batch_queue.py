"""Which queries go into the next batch: pure rules without threads, clock or models.

    put ──> caller A [ oldest … newest ] ─┐
            caller B [ oldest … newest ] ─┼─ in turn ──take──> batch
            caller C [ oldest … newest ] ─┘
                └─ those that nobody waits for any more, or that cannot be in time, are dropped here, unencoded

Nothing is sealed before a worker can start it, so batches grow only because work is in progress, and of what has
gathered by then the queries of like length go together. The caller whose turn it is leads the batch with its oldest
query, whatever its length: so nobody starves, and a caller that floods the queue delays itself.
"""

from collections import Counter, deque
from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Generic, Protocol, TypeVar

from service.shapes import ShapeCosts


class Waiting(Protocol):
    """A query in the queue."""

    @property
    def tokens(self) -> int:
        """What is to be encoded, special tokens included; 0 where the embedding is known already."""

    @property
    def caller(self) -> Hashable:
        """Who asks; callers take turns."""

    @property
    def group(self) -> Hashable:
        """What must be alike within a batch, such as the release."""

    @property
    def key(self) -> Hashable:
        """What it is encoded from; while one query of a key is being encoded, others wait for its embedding."""

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

SCANNED_PER_PLACE = 8
"""How many queries that are still waited for are looked at for each place in a batch, which bounds the work."""


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """Limits of one batch and of the queue."""

    max_batch_size: int
    max_batch_tokens: int
    """Most tokens after padding, that is longest × count; a single longer query still goes alone."""
    max_queue_size: int
    costs: ShapeCosts | None = None
    """Of the shapes of a device, by which queries of unlike length go together; None on the CPU."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """Queries that will be taken before a newcomer."""

    count: int
    tokens: float


class BatchQueue(Generic[W]):
    """Bounded, fair between callers, oldest first, grouped by length. Not thread-safe: its owner holds the lock."""

    def __init__(self, policy: BatchPolicy) -> None:
        self._policy = policy
        self._callers: dict[Hashable, deque[W]] = {}
        """In the order of their turns."""
        self._count = 0
        self._tokens = 0

    def __len__(self) -> int:
        return self._count

    def adapt(self, policy: BatchPolicy) -> None:
        """Go by other limits from the next batch on."""
        self._policy = policy

    def oldest(self) -> W | None:
        """The head of the line of the caller that has its turn next."""
        return next((waiting[0] for waiting in self._callers.values()), None)

    def full(self, caller: Hashable, now: float) -> bool:
        """Whether one more of this caller must be refused; what nobody waits for is dropped before that is said.

        A caller may hold as many places as it leaves free (Choudhury and Hahne's dynamic threshold with a factor of
        one, IEEE/ACM Trans. Networking 6(2), 1998), so there is always room for others.
        """
        if self._has_room(caller):
            return False
        self._drop(now)
        return not self._has_room(caller)

    def ahead_of(self, caller: Hashable) -> Backlog:
        """What will be taken before a newcomer of this caller, as callers take turns."""
        turns = len(self._callers.get(caller, ())) + 1
        count = sum(min(len(waiting), turns) for waiting in self._callers.values())
        tokens = self._tokens * count / self._count if self._count else 0.0
        return Backlog(count, tokens)

    def put(self, item: W) -> None:
        """Append the newest; the caller has asked whether the queue is full."""
        self._callers.setdefault(item.caller, deque()).append(item)
        self._count += 1
        self._tokens += item.tokens

    def discard(self, item: W) -> None:
        """Remove one that nobody waits for any more; nothing where it was taken already."""
        waiting = self._callers.get(item.caller)
        if waiting is not None and item in waiting:
            self._remove(waiting, item)
            if not waiting:
                del self._callers[item.caller]

    def take(
        self, now: float, *, least_s: float = 0.0, encoding: Collection[Hashable] = (), encoder_free: bool = True
    ) -> list[W]:
        """Remove and return the next batch; empty when nobody can be served now.

        The oldest query of the caller whose turn it is leads, so none waits for more than the batches of those before
        it. The others join by turns and age, those of another group or that would cause too much padding being passed
        over until they lead themselves. Abandoned queries and those whose deadline comes within `least_s`, the least
        time that an answer takes, are dropped on the way.

        Args:
            now: in seconds of the queue's clock.
            least_s: see above.
            encoding: keys that a running batch is encoding; their queries wait for that embedding.
            encoder_free: whether a batch may be encoded now; if not, only queries with an embedding are taken.
        """
        if self._count == 1:  # most of the time, and then there is nothing to choose
            return self._take_only(now + least_s, encoding, encoder_free=encoder_free)
        batch: list[W] = []
        turns: dict[Hashable, None] = {}
        passed_over: set[tuple[Hashable, Hashable, int]] = set()
        longest = encoded = 0
        for waiting, item in islice(self._by_turns(now + least_s), self._policy.max_batch_size * SCANNED_PER_PLACE):
            if item.tokens and (item.key in encoding or not encoder_free):
                continue
            if batch and not self._fits(batch[0], encoded, longest, item):
                passed_over.add((item.caller, item.group, item.tokens))
            if (item.caller, item.group, item.tokens) in passed_over:  # those of one length keep their order
                continue
            if waiting[0] is item:
                turns[item.caller] = None
            self._remove(waiting, item)
            batch.append(item)
            if item.tokens:
                encoded += 1
                longest = max(longest, item.tokens)
            if len(batch) == self._policy.max_batch_size:
                break
        self._end_turns(turns, batch)
        return batch

    def _take_only(self, latest: float, encoding: Collection[Hashable], *, encoder_free: bool) -> list[W]:
        [waiting] = [waiting for waiting in self._callers.values() if waiting]
        item = waiting[0]
        in_vain = item.abandoned or item.deadline <= latest
        if item.tokens and (item.key in encoding or not encoder_free) and not in_vain:
            return []
        self._callers.clear()
        self._count = self._tokens = 0
        return [] if in_vain else [item]

    def _by_turns(self, latest: float) -> Iterator[tuple[deque[W], W]]:
        """One query of each caller, then a second of each, …; they may be removed meanwhile."""
        lines = [(waiting, self._waited_for(waiting, latest)) for waiting in self._callers.values()]
        while lines:
            going_on = []
            for waiting, line in lines:
                item = next(line, None)
                if item is not None:
                    going_on.append((waiting, line))
                    yield waiting, item
            lines = going_on

    def _waited_for(self, waiting: deque[W], latest: float) -> Iterator[W]:
        """The queries of one caller; those that are in vain are dropped on the way and use up no turn."""
        for item in list(waiting):
            if item.abandoned or item.deadline <= latest:
                self._remove(waiting, item)
            else:
                yield item

    def _fits(self, leader: W, encoded: int, longest: int, item: W) -> bool:
        """Whether a query may join: same group, and the padding that it gets, or gives to the others, is small."""
        if item.group != leader.group:
            return False
        tokens = item.tokens
        if not tokens or not encoded:
            return True
        if max(longest, tokens) * (encoded + 1) > self._policy.max_batch_tokens:
            return False
        if self._policy.costs is not None:
            return self._policy.costs.better_together(encoded, longest, tokens)
        padding = longest - tokens if tokens <= longest else encoded * (tokens - longest)
        return padding <= max(PADDING_TOKENS, tokens * PADDING_SHARE)

    def _remove(self, waiting: deque[W], item: W) -> None:
        waiting.remove(item)
        self._count -= 1
        self._tokens -= item.tokens

    def _end_turns(self, turns: Collection[Hashable], batch: Sequence[W]) -> None:
        """Send those whose oldest query was taken to the end, those who got least first; forget who has nothing left.

        Who got something while its oldest was passed over keeps its place: its turn to lead comes all the same.
        """
        if not self._count:
            self._callers.clear()
            return
        taken = Counter(item.caller for item in batch)
        for caller in sorted(turns, key=taken.__getitem__):
            self._callers[caller] = self._callers.pop(caller)
        for caller in [caller for caller, waiting in self._callers.items() if not waiting]:
            del self._callers[caller]

    def _has_room(self, caller: Hashable) -> bool:
        return len(self._callers.get(caller, ())) < self._policy.max_queue_size - self._count

    def _drop(self, now: float) -> None:
        for waiting in self._callers.values():
            for item in [item for item in waiting if item.abandoned or item.deadline <= now]:
                self._remove(waiting, item)
        self._end_turns([], [])
