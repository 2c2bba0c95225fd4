"""What an open-loop run saw, and what it says about the server."""

from dataclasses import dataclass
from itertools import compress

import numpy as np
from numpy.typing import NDArray

FAILED = 0
"""Status of a request whose connection failed, or that had no answer long after the end."""
ABANDONED = -1
"""Status of a request that its client gave up on purpose."""

Seconds = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class OpenLoad:
    """What an open-loop run saw; the arrays have one entry an arrival, in seconds from the start of the run."""

    seconds: float
    """How long requests arrived."""
    intended_s: Seconds
    sent_s: Seconds
    """nan where never."""
    done_s: Seconds
    """The last byte of the answer; nan where there was none."""
    status: NDArray[np.int64]
    """HTTP status, `FAILED` or `ABANDONED`."""
    bodies: list[bytes]
    """One an arrival where kept, empty where there was no answer; else an empty list."""
    busy_share: float
    """Share of the time in which the generator sent, read or was kept from running; near 1 it is what limits the run.

    Says nothing of a generator that sleeps instead of polling.
    """

    def between(self, from_s: float, to_s: float) -> "OpenLoad":
        """The arrivals that were due in [`from_s`, `to_s`), as a run that began at `from_s`."""
        chosen = (self.intended_s >= from_s) & (self.intended_s < to_s)
        return OpenLoad(
            to_s - from_s,
            self.intended_s[chosen] - from_s,
            self.sent_s[chosen] - from_s,
            self.done_s[chosen] - from_s,
            self.status[chosen],
            list(compress(self.bodies, chosen)),
            self.busy_share,
        )

    @property
    def latency_s(self) -> Seconds:
        """From the intended send to the last byte; nan where there was no answer."""
        return self.done_s - self.intended_s

    @property
    def offered_qps(self) -> float:
        """Arrivals a second."""
        return len(self.intended_s) / self.seconds

    @property
    def achieved_qps(self) -> float:
        """Answers a second while requests arrived, whatever their status."""
        return float(np.sum(self.done_s <= self.seconds)) / self.seconds

    def goodput_qps(self, deadline_s: float) -> float:
        """Answers 200 a second, while requests arrived, that came within `deadline_s` of their intended send."""
        good = (self.status == 200) & (self.latency_s <= deadline_s) & (self.done_s <= self.seconds)
        return float(np.sum(good)) / self.seconds

    def late_share(self, deadline_s: float) -> float:
        """Share of the answers 200 that came later than `deadline_s` after their intended send."""
        accepted = self.latency_s[self.status == 200]
        return float(np.mean(accepted > deadline_s)) if len(accepted) else 0.0

    def share(self, status: int) -> float:
        """Share of the arrivals that ended in `status`."""
        return float(np.mean(self.status == status)) if len(self.status) else 0.0

    def latency_ms(self, percentile: float) -> float:
        """A percentile (0 to 100) of the latency of answers 200; nan where there was none."""
        return _percentile_ms(self.latency_s[self.status == 200], percentile)

    def lateness_ms(self, percentile: float) -> float:
        """A percentile (0 to 100) of how long after their time requests were sent."""
        return _percentile_ms((self.sent_s - self.intended_s)[~np.isnan(self.sent_s)], percentile)


def _percentile_ms(values_s: Seconds, percentile: float) -> float:
    return float(np.percentile(values_s, percentile)) * 1e3 if len(values_s) else float("nan")
