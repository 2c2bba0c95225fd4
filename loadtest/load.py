"""A load: how many requests come when, for how long."""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

OBEYS = "obeys"
"""What a worker says to the master once it takes loads."""
Arrivals = Literal["poisson", "constant"]


@dataclass(frozen=True, slots=True)
class Load:
    """Arrivals at a rate (open loop), or users who ask again as soon as they have an answer (closed loop)."""

    name: str
    seconds: float
    rate: float | None = None
    """Arrivals a second, whether or not earlier requests were answered; None is a closed loop."""
    arrivals: Arrivals = "poisson"
    users: int = 1
    """Closed loop: how many. Open loop: sources that share the rate, one or more a process."""
    steps: tuple[tuple[float, float], ...] = ()
    """Seconds and rate of one stretch after the other, where the rate changes; `rate` is then their mean."""
    log: str | None = None
    """A request log whose requests come as they once came, in place of arrivals at a rate."""
    speed: float = 1.0
    """How much faster than they once came."""

    def __str__(self) -> str:
        if self.rate is None:
            return f"{self.users} user{'s' if self.users > 1 else ''}, closed loop"
        if self.steps:
            rates = [rate for _, rate in self.steps]
            return f"{min(rates):,.4g} to {max(rates):,.4g}/s, {self.arrivals}"
        return f"{self.rate:,.4g}/s, {f'replay at {self.speed:g} ×' if self.log else self.arrivals}"

    def rate_at(self, passed_s: float) -> float | None:
        """Arrivals a second that are planned for a moment of an open loop."""
        begin_s = 0.0
        for seconds, rate in self.steps:
            if passed_s < begin_s + seconds:
                return rate
            begin_s += seconds
        return self.rate if not self.steps else self.steps[-1][1]

    def shared(self, users: int) -> "Load":
        """The same from so many sources."""
        return replace(self, users=users)

    def due_s(self, rng: random.Random) -> Iterator[float]:
        """When requests of one source of an open loop are due, in seconds from the start.

        Poisson processes add up to one, so sources need not know of each other.
        """
        begin_s = 0.0
        for seconds, rate in self.steps or ((self.seconds, self.rate or 0.0),):
            yield from (begin_s + due_s for due_s in self._stretch_s(seconds, rate / self.users, rng))
            begin_s += seconds

    def _stretch_s(self, seconds: float, rate: float, rng: random.Random) -> Iterator[float]:
        if self.arrivals == "constant":
            gaps: Iterator[float] = itertools.chain([rng.random() / rate], itertools.repeat(1 / rate))
        else:
            gaps = (rng.expovariate(rate) for _ in itertools.count())
        return itertools.takewhile(lambda due_s: due_s < seconds, itertools.accumulate(gaps))
