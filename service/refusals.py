"""Refusals that hold for a moment: at ten times the capacity, nine of ten requests must cost next to nothing."""

import re
from collections.abc import Hashable

from service.errors import Overloaded

HOLDS_S = 0.002
"""For so long, what was refused is refused again: only a few queries are answered in it."""
TOLERANCE_MS = 1
"""What was left of the refused one's budget when it was refused is a little less than it had given."""
MOST_CALLERS = 10_000

_TIMEOUT = re.compile(rb'"timeout_ms"\s*:\s*(\d{1,9})')
"""No string in JSON contains an unescaped quote, so what this finds is a field."""


class RecentRefusals:
    """The last refusal of each caller. Used on the event loop alone."""

    def __init__(self, default_timeout_ms: int) -> None:
        """Take the time budget of requests that name none."""
        self._default_timeout_ms = default_timeout_ms
        self._refusals: dict[Hashable, tuple[float, float, Overloaded]] = {}

    def remember(self, caller: Hashable, now: float, budget_s: float, refusal: Overloaded) -> None:
        """What a request of this caller was refused with, that gave `budget_s` more seconds."""
        if len(self._refusals) >= MOST_CALLERS:
            self._refusals.clear()
        self._refusals[caller] = (now + HOLDS_S, budget_s * 1e3, refusal)

    def for_body(self, body: bytes, caller: Hashable, now: float) -> Overloaded | None:
        """The refusal that holds for this request too: it is recent, and this body gives no more time than that one."""
        recent = self._refusals.get(caller)
        if recent is None:
            return None
        until, budget_ms, refusal = recent
        if now >= until:
            del self._refusals[caller]
            return None
        timeout_ms = max(map(int, _TIMEOUT.findall(body)), default=self._default_timeout_ms)
        return refusal if timeout_ms <= budget_ms + TOLERANCE_MS else None
