"""One request on its way: what is known of it so far, and who learns how it ended."""

from dataclasses import dataclass
from typing import Protocol

from index.filters import Wanted
from service.admission import StepName
from service.answer import StageTimes, Write
from service.errors import RequestError
from service.origin import OnDone, Origin
from service.pipeline import Found
from service.release import Release
from service.schemas import RetrieveRequest


@dataclass(slots=True, eq=False)
class Exchange:
    """A request and what has been decided about it; filled in along the line."""

    origin: Origin
    on_done: OnDone
    write: Write
    """How an answer is written."""
    request: RetrieveRequest | None = None
    request_id: str = ""
    release: Release | None = None
    """Everything in the answer comes from it."""
    wanted: Wanted | None = None
    """What is searched for."""
    text: str = ""
    """The query as the tokenizer sees it."""
    cached: bool = False
    """Whether the embedding, or the whole result, was known."""
    steps: tuple[StepName, ...] = ()
    """How the answer was made cheaper."""
    predicted_s: float | None = None
    """Until the answer, from `tokenized_at` on; None where the result was cached."""
    tokenized_at: float = 0.0
    """When it was queued, in seconds of `perf_counter`."""


class Watcher(Protocol):
    """Learns how requests ended; called on the event loop, so it must be quick."""

    def answered(self, exchange: Exchange, found: Found, times: StageTimes) -> None:
        """A request got its ads."""

    def refused(self, exchange: Exchange, error: RequestError) -> None:
        """A request got none; its release is None where none had been chosen."""
