"""Judges a canary by the requests it answers: more failures than stable, or slower, and it loses its share."""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from service.settings import CanarySettings

JUDGED_PERCENTILE = 0.95
"""Of `min_requests`, 500 by default, 25 are slower; of the 99th percentile only 5, and chance would abort canaries."""
BINS_AN_OCTAVE = 8
"""Latencies are binned by their logarithm: a percentile is right to within 9 %."""
SHORTEST_S = 1e-5
_BINS = 200  # to 335 s
LONGEST_WINDOW = 10
"""Times `min_requests`: how long to wait for as many of stable's where the canary has most of the traffic."""

FAILURES = frozenset({"internal_error", "deadline_exceeded"})
"""Outcomes that speak against a release; a caller's mistakes and a service without room do not."""


class Breach(NamedTuple):
    """The bound that a canary broke."""

    reason: str
    """`errors` or `latency`."""
    sentence: str


@dataclass(slots=True)
class _Window:
    """Requests since the last judgement."""

    failed: int = 0
    answered: int = 0
    bins: list[int] = field(default_factory=lambda: [0] * _BINS)

    @property
    def requests(self) -> int:
        return self.failed + self.answered

    @property
    def error_ratio(self) -> float:
        return self.failed / self.requests if self.requests else 0.0

    def add(self, seconds: float) -> None:
        octaves = math.log2(max(seconds, SHORTEST_S) / SHORTEST_S)
        self.bins[min(int(octaves * BINS_AN_OCTAVE), _BINS - 1)] += 1
        self.answered += 1

    def percentile(self, share: float) -> float:
        """Seconds; the upper end of the bin that `share` of the answers reach."""
        left = share * self.answered
        for number, count in enumerate(self.bins):
            left -= count
            if left <= 0:
                return float(SHORTEST_S * 2 ** ((number + 1) / BINS_AN_OCTAVE))
        return math.inf


class CanaryGuard:
    """Compares a canary with the stable release over the same requests' time.

    A window ends when both have had `min_requests`, so a small share is judged as surely as a large one, only later.
    Too many failures end it early: as soon as what is left of the canary's `min_requests` could not make up for them.
    """

    def __init__(self, bounds: CanarySettings) -> None:
        self._bounds = bounds
        self._canary = _Window()
        self._stable = _Window()

    def answered(self, seconds: float, *, canary: bool) -> Breach | None:
        """A request got its ads, from the canary or from stable; the bound that is broken now."""
        if not canary:
            self._stable.add(seconds)
            return None
        self._canary.add(seconds)
        return self._judge()

    def failed(self, outcome: str, *, canary: bool) -> Breach | None:
        """A request got none; the bound that is broken now."""
        if outcome not in FAILURES:
            return None
        (self._canary if canary else self._stable).failed += 1
        return self._judge() if canary else None

    def _judge(self) -> Breach | None:
        canary, stable, bounds = self._canary, self._stable, self._bounds
        counted = max(canary.requests, bounds.min_requests)
        most = stable.error_ratio + bounds.max_error_ratio
        if canary.failed > most * counted:
            return Breach(
                "errors",
                f"{canary.failed} of {canary.requests} requests failed, of stable's {stable.failed} of"
                f" {stable.requests}; canary.max_error_ratio allows {bounds.max_error_ratio:g} more",
            )
        most_requests = LONGEST_WINDOW * bounds.min_requests
        if min(canary.requests, stable.answered) < bounds.min_requests and canary.requests < most_requests:
            return None
        self._canary, self._stable = _Window(), _Window()
        if stable.answered < bounds.min_requests:  # nothing to compare with
            return None
        ours, theirs = canary.percentile(JUDGED_PERCENTILE), stable.percentile(JUDGED_PERCENTILE)
        if ours <= bounds.max_latency_ratio * theirs:
            return None
        return Breach(
            "latency",
            f"its 95th percentile is {ours * 1e3:.1f} ms, stable's {theirs * 1e3:.1f} ms; canary.max_latency_ratio"
            f" allows {bounds.max_latency_ratio:g} times as much",
        )
