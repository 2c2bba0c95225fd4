"""A load: how many requests come when, for how long."""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

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

    def __str__(self) -> str:
        if self.rate is None:
            return f"{self.users} user{'s' if self.users > 1 else ''}, closed loop"
        return f"{self.rate:,.4g}/s, {self.arrivals}"

    def of_one_user(self) -> "Load":
        """What one of its users does: the sources together have the rate."""
        return replace(self, rate=self.rate and self.rate / self.users, users=1)

    def due_s(self, rng: random.Random) -> Iterator[float]:
        """When requests of an open loop are due, in seconds from the start; Poisson processes add up to one."""
        assert self.rate
        if self.arrivals == "constant":
            gaps: Iterator[float] = itertools.chain([rng.random() / self.rate], itertools.repeat(1 / self.rate))
        else:
            gaps = (rng.expovariate(self.rate) for _ in itertools.count())
        return itertools.takewhile(lambda due: due < self.seconds, itertools.accumulate(gaps))
