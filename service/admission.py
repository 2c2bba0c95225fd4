"""Whether a request can be answered in time, and how well: decided before anything is spent on it.

    pressure = predicted seconds until the answer / seconds that its caller still gives

Each step of `overload.steps` is in force from its own pressure on, so the order in which answers get cheaper is
configured; what cannot make it at all (pressure above one) is refused at once.
"""

import math
from collections.abc import Sequence
from typing import Literal, Protocol

from service.errors import Overloaded
from service.schedule import Forecast

StepName = Literal["smaller_ef_search", "cached_only"]

GAIN_OF_MEAN = 1 / 8
GAIN_OF_DEVIATION = 1 / 4
DEVIATIONS = 4
"""How far predictions were off, and the margin for it: the estimator of TCP's retransmission timer, RFC 6298."""
LEAST_PREDICTED_S = 1e-4


class Step(Protocol):
    """A way to answer more cheaply."""

    @property
    def name(self) -> StepName:
        """What is done."""

    @property
    def at_pressure(self) -> float:
        """From which pressure on, above 0 and at most 1."""


class Margin:
    """How much longer than predicted answers take, learned from those that were given.

    A wait is the sum of many batches, so errors grow like the root of it: with one margin for all, a caller who floods
    the queue, and waits for long, would have those refused who wait for a short time. A hiccup is as long for everyone:
    scaled up from a short wait, it would have those refused who wait for long. So the smaller of the two counts.
    """

    def __init__(self) -> None:
        self._seconds = _Estimate()
        self._by_root = _Estimate()

    def learn(self, predicted_s: float, actual_s: float) -> None:
        """Take one request into account: answered, served at once or not, or given up at its deadline.

        Those that were served at once as well, since after a stall there may be no others to learn from.
        """
        self._seconds.learn(actual_s - predicted_s)
        self._by_root.learn((actual_s - predicted_s) / _root(predicted_s))

    def of(self, predicted_s: float) -> float:
        """Seconds to be added to a prediction so that few answers are later; never negative."""
        return min(self._seconds.high, self._by_root.high * _root(predicted_s))


class _Estimate:
    """Mean and mean deviation of errors."""

    def __init__(self) -> None:
        self._mean = 0.0
        self._deviation = 0.0

    def learn(self, error: float) -> None:
        self._deviation += GAIN_OF_DEVIATION * (abs(error - self._mean) - self._deviation)
        self._mean += GAIN_OF_MEAN * (error - self._mean)

    @property
    def high(self) -> float:
        """What few errors exceed; never negative."""
        return max(0.0, self._mean + DEVIATIONS * self._deviation)


def _root(predicted_s: float) -> float:
    return math.sqrt(max(predicted_s, LEAST_PREDICTED_S))


class Admission:
    """Holds predictions against time budgets. Used on the event loop alone."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = sorted(steps, key=lambda step: step.at_pressure)
        self.margin = Margin()

    def admit(self, forecast: Forecast, budget_s: float, *, cached: bool) -> tuple[StepName, ...]:
        """Decide on one request.

        An idle service answers as it can, whatever was predicted: so a prediction gone wrong refuses nothing for long.

        Args:
            forecast: what it would find.
            budget_s: seconds until its answer is worth nothing.
            cached: whether it needs no encoding.

        Returns:
            The steps in force, in their order; none where it will get a full answer.

        Raises:
            Overloaded: it would be late, too many are waiting, or only cached answers are given now.
        """
        if forecast.full:
            raise Overloaded("too many queries are waiting already", forecast.predicted_s)
        if forecast.idle:
            return ()
        waiting_s = forecast.predicted_s + self.margin.of(forecast.predicted_s)
        pressure = waiting_s / budget_s if budget_s > 0 else math.inf
        if pressure > 1:
            raise Overloaded("the answer would come too late", waiting_s)
        steps = tuple(step.name for step in self._steps if pressure >= step.at_pressure)
        if "cached_only" in steps and not cached:
            raise Overloaded("only queries that were asked before are answered now", waiting_s)
        return steps
