"""Where a request comes from, and where its answer goes: all that a connection knows of it."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass

from service.errors import RequestError
from service.query_tokenizer import Prepared

OnDone = Callable[[bytes | RequestError], None]
"""Gets the body of the answer, or why there is none; once, on the event loop."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request came from, beside its body."""

    caller: Hashable
    """Callers take turns in the queue."""
    arrived: float
    """In seconds of `perf_counter`."""
    release: str | None = None
    """The release that it asks for, by name or role."""
    traceparent: str | None = None
    """The caller's W3C trace context."""
    prepared: Prepared | None = None
    """The query, tokenised by a front process."""
