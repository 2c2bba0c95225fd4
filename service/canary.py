"""Judges a canary by the requests it answers: more failures than stable, or slower, and it loses its share."""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from service.settings import CanarySettings

JUDGED_PERCENTILE = 0.95
"""Of `min_requests`, 500 by default, 25 are slower; of the 99th percentile only 5, too few to tell anything from."""
DEVIATIONS = 5
"""Standard errors by which a bound must be broken. A canary is judged over and over, and should not be stopped by
chance: this happens once in 3 million judgements."""
LONGEST_WINDOW = 10
"""Times `min_requests`; the longer the window, the smaller a difference it shows, and the later a new one."""
BINS_AN_OCTAVE = 8
"""Latencies are binned by their logarithm: a percentile is right to within 9 %."""
SHORTEST_S = 1e-5
_BINS = 200  # to 335 s

FAILURES = frozenset({"internal_error", "deadline_exceeded"})
"""Outcomes that speak against a release; a caller's mistakes and a service without room do not."""


class Breach(NamedTuple):
    """The bound that a canary broke."""

    reason: str
    """`errors` or `latency`."""
    sentence: str


@dataclass(slots=True)
class _Window:
    """Requests of one release since the window began."""

    failed: int = 0
    answered: int = 0
    bins: list[int] = field(default_factory=lambda: [0] * _BINS)

    @property
    def requests(self) -> int:
        return self.failed + self.answered

    def add(self, seconds: float) -> None:
        self.bins[_bin(seconds)] += 1
        self.answered += 1

    def percentile(self, share: float) -> float:
        """Seconds; the upper end of the bin that `share` of the answers reach."""
        left = share * self.answered
        for number, count in enumerate(self.bins):
            left -= count
            if left <= 0:
                return float(SHORTEST_S * 2 ** ((number + 1) / BINS_AN_OCTAVE))
        return math.inf

    def slower_than(self, seconds: float) -> int:
        """Answers in bins beyond the one of `seconds`."""
        return sum(self.bins[_bin(seconds) + 1 :])


class CanaryGuard:
    """Compares a canary with the stable release over the time of the same requests.

    Whatever its share, a canary is judged from its `min_requests`-th request on, and sooner where too many failed for
    the rest to make up for it. A small share is judged as surely as a large one, only later.
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
        if self._canary.requests % self._bounds.min_requests:
            return None
        breach = self._failing() or self._slow()
        if self._canary.requests >= LONGEST_WINDOW * self._bounds.min_requests:
            self._canary, self._stable = _Window(), _Window()
        return breach

    def failed(self, outcome: str, *, canary: bool) -> Breach | None:
        """A request got none; the bound that is broken now."""
        if outcome not in FAILURES:
            return None
        (self._canary if canary else self._stable).failed += 1
        return self._failing() if canary else None

    def _failing(self) -> Breach | None:
        canary, stable, allowed = self._canary, self._stable, self._bounds.max_error_ratio
        of_stable = stable.failed / stable.requests if stable.requests else 0.0
        counted = max(canary.requests, self._bounds.min_requests)
        most = _most(min(1.0, of_stable + allowed), counted, canary.requests, stable.requests)
        if canary.failed <= most:
            return None
        return Breach(
            "errors",
            f"{canary.failed} of {canary.requests} requests failed, of stable's {stable.failed} of {stable.requests};"
            f" canary.max_error_ratio allows {allowed:g} more, and chance {most:.0f} in all",
        )

    def _slow(self) -> Breach | None:
        canary, stable, allowed = self._canary, self._stable, self._bounds.max_latency_ratio
        if not stable.answered:
            return None
        slowest_s = allowed * stable.percentile(JUDGED_PERCENTILE)
        slower = canary.slower_than(slowest_s)
        most = _most(1 - JUDGED_PERCENTILE, canary.answered, canary.answered, stable.answered)
        if slower <= most:
            return None
        return Breach(
            "latency",
            f"{slower} of {canary.answered} answers took more than {slowest_s * 1e3:.1f} ms, {allowed:g} times stable's"
            f" 95th percentile (canary.max_latency_ratio), and chance explains {most:.0f}",
        )


def _most(ratio: float, count: int, ours: int, theirs: int) -> float:
    """How many of `count` requests may be what `ratio` should be, as estimated from so many requests of both."""
    uncertainty = 1 + (ours / theirs if theirs else 0)
    return count * ratio + DEVIATIONS * math.sqrt(count * ratio * (1 - ratio) * uncertainty)


def _bin(seconds: float) -> int:
    octaves = math.log2(max(seconds, SHORTEST_S) / SHORTEST_S)
    return min(int(octaves * BINS_AN_OCTAVE), _BINS - 1)
