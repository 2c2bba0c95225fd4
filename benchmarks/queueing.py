"""What queueing alone does to latency: the bare pipeline behind a queue, without a server around it."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

ARRIVALS = 100_000


def least_p99_ms(took_ms: Mapping[int, Sequence[float]], rate: float, seed: int) -> float:
    """The p99 of Poisson arrivals with the limit of a batch that is best for it.

    Args:
        took_ms: measured times of a whole batch, by its size; 1 is among them.
        rate: arrivals a second.
        seed: of the arrivals, and of which of the measured times a batch takes.
    """
    sizes = sorted(took_ms)
    limits = range(1, len(sizes) + 1)
    times = {size: np.asarray(took_ms[size]) for size in sizes}
    return min(_p99_ms({size: times[size] for size in sizes[:limit]}, rate, seed) for limit in limits)


def _p99_ms(took_ms: dict[int, NDArray[np.float64]], rate: float, seed: int) -> float:
    """Whenever the server is free, it takes the largest batch that is measured and waits already."""
    chance = np.random.default_rng(seed)
    due = np.cumsum(chance.exponential(1e3 / rate, ARRIVALS))
    drawn = {size: iter(chance.choice(times, ARRIVALS).tolist()) for size, times in took_ms.items()}
    latency = np.empty(ARRIVALS)
    free, first = 0.0, 0
    while first < ARRIVALS:
        starts = max(free, due[first])
        waiting = int(np.searchsorted(due, starts, side="right")) - first
        size = max(size for size in took_ms if size <= max(1, waiting))
        free = starts + next(drawn[size])
        latency[first : first + size] = free - due[first : first + size]
        first += size
    return float(np.percentile(latency, 99))
