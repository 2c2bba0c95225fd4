"""The highest Poisson rate that meets objectives, by bisection.

How many requests a step takes follows the rule of MLPerf's Server scenario: so many that the share of late ones is
known within a margin at a confidence. Its own margin, a twentieth of the allowed share, takes 262,742 requests for p99
at 99 %; a step here ends as soon as more are late than the whole of it may have.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from loadtest.errors import LoadTestError
from loadtest.load import Load
from loadtest.result import RANKS, Capacity, Phase
from loadtest.samples import Samples
from loadtest.slo import Objective, parse_slo

if TYPE_CHECKING:
    from loadtest.measure import Measurement

LEAST_RATE = 1.0
LEAST_SECONDS = 2.0
NO_ERRORS = Objective("errors", 0.001, "errors=0.1%")


@dataclass(frozen=True, slots=True)
class Search:
    """What is looked for, and how closely."""

    latency: Objective
    """Of a percentile."""
    errors: Objective
    first_rate: float = 50.0
    tolerance: float = 0.05
    """Of the rate, as a share."""
    confidence: float = 0.99
    margin: float = 0.2
    """How closely the share of late requests is known, as a share of what the percentile allows; MLPerf has 0.05."""

    @property
    def allowed_share(self) -> float:
        """Of late requests: 0.01 for p99."""
        return 1 - RANKS[self.latency.name] / 100

    @property
    def samples(self) -> int:
        """How many requests a step takes."""
        z = NormalDist().inv_cdf((1 + self.confidence) / 2)
        late = self.allowed_share
        return math.ceil(z**2 * late * (1 - late) / (self.margin * late) ** 2)


def parse_search(slo: str, first_rate: float, tolerance: float, confidence: float, margin: float) -> Search:
    """A search for the rate that meets `slo`, as in `p99=25ms,errors=0.1%`.

    Raises:
        LoadTestError: it is not one percentile, with errors or without.
    """
    objectives = {one.name: one for one in parse_slo(slo)}
    errors = objectives.pop("errors", NO_ERRORS)
    if len(objectives) != 1 or "max" in objectives:
        raise LoadTestError(f"{slo!r}: expected one percentile and perhaps errors, as in p99=25ms,errors=0.1%")
    [latency] = objectives.values()
    return Search(latency, errors, first_rate, tolerance, confidence, margin)


@dataclass
class _Step:
    """Counts the late requests of a step and ends it once it cannot meet the objectives any more."""

    search: Search
    late: int = 0
    failed: int = 0
    hopeless: bool = False

    def __call__(self, fresh: Samples) -> bool:
        self.late += int(np.sum(fresh.latency_ms > self.search.latency.bound))
        self.failed += int(np.sum(~fresh.ok))
        samples = self.search.samples
        self.hopeless = (
            self.late > self.search.allowed_share * samples or self.failed > self.search.errors.bound * samples + 1
        )
        return self.hopeless


def find_capacity(measurement: "Measurement", search: Search) -> Capacity:
    """Double the rate until it fails, then halve the range; every step becomes a phase of the measurement."""
    rate, passing, failing = search.first_rate, 0.0, math.inf
    while rate >= LEAST_RATE and failing / max(passing, LEAST_RATE / 2) > 1 + search.tolerance:
        if meets(measurement, search, rate):
            passing = rate
        else:
            failing = rate
        if failing == math.inf:
            rate = 2 * passing
        elif not passing:
            rate = failing / 2
        else:
            rate = math.sqrt(passing * failing)
    return Capacity(
        rate=passing or None,
        bound=f"{search.latency.text}, {search.errors.text}",
        knee_rate=knee(measurement.phases),
        samples=search.samples,
        confidence=search.confidence,
        margin=search.margin,
    )


def meets(measurement: "Measurement", search: Search, rate: float) -> bool:
    """Whether one rate meets the objectives."""
    seconds = max(LEAST_SECONDS, search.samples / rate)
    step = _Step(search)
    phase = measurement.run(Load(f"{rate:.4g}/s", seconds, rate), step)
    return not step.hopeless and search.latency.judge(phase).met and search.errors.judge(phase).met


def knee(phases: list[Phase]) -> float | None:
    """The rate from which p99 rises steeply: where it is furthest below the line from first to last (Kneedle)."""
    points = sorted((phase.offered_qps, p99) for phase in phases if (p99 := phase.latency_ms["p99"]) is not None)
    if len(points) < 3:
        return None
    rates, latencies = np.array(points).T
    if not np.ptp(rates) or latencies[-1] <= latencies[0]:
        return None
    below = (rates - rates[0]) / np.ptp(rates) - (latencies - latencies[0]) / (latencies[-1] - latencies[0])
    return float(rates[int(np.argmax(below))])
