"""Query streams as skewed as a search log: a few queries come again and again, most are never seen twice.

The AOL log's shares of volume (Williams, "Caching in search", 2012): its 1,000 most frequent queries are 11 %, its
10,000 are 20 %, its 100,000 are 34 %. A Zipf–Mandelbrot law, scale / (rank + shift) ** exponent, goes through all three
points. The rest of the volume is queries that come once: longer logs see some of them again, no replay of minutes does.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import root

from benchmarks.errors import BenchmarkError

AOL_SHARES: Mapping[int, float] = {1_000: 0.11, 10_000: 0.20, 100_000: 0.34}
"""Share of volume by number of head queries; three points for the law's three parameters."""
CHUNK = 10_000

Shares = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Law:
    """Share of volume by rank, from 1 to `ranks`."""

    ranks: int
    exponent: float
    shift: float
    scale: float

    def cumulative(self) -> Shares:
        """Share of the first n ranks at index n - 1, (ranks,)."""
        shares: Shares = self.scale * _cumulative(self.ranks, self.exponent, self.shift)
        return shares


def fit_law(shares: Mapping[int, float] = AOL_SHARES) -> Law:
    """The law that goes through three points, number of head queries to share of volume, in rising order."""
    bounds, wanted = zip(*shares.items(), strict=True)

    def excess(parameters: Shares) -> Shares:
        found = _cumulative(bounds[-1], parameters[0], np.exp(parameters[1]))[np.array(bounds) - 1]
        too_much: Shares = np.log(found[1:] / found[0]) - np.log(np.array(wanted[1:]) / wanted[0])
        return too_much

    exponent, log_shift = map(float, root(excess, [0.8, 0.0]).x)
    shift = float(np.exp(log_shift))
    return Law(bounds[-1], exponent, shift, wanted[-1] / float(_cumulative(bounds[-1], exponent, shift)[-1]))


def _cumulative(ranks: int, exponent: float, shift: float) -> Shares:
    return np.cumsum((np.arange(1.0, ranks + 1) + shift) ** -exponent)


def distinct_queries(queries: Iterable[str]) -> Iterator[str]:
    """The given queries without repetition, and then two of them together, in every combination."""
    singles = list(dict.fromkeys(queries))
    known = set(singles)
    # First to second, first to third, …: neighbours in the stream have no word in common.
    pairs = (
        pair
        for distance in range(1, len(singles))
        for first, second in zip(singles, singles[distance:] + singles[:distance], strict=True)
        if (pair := f"{first} {second}") not in known
    )
    return chain(singles, pairs)


class Replay:
    """A seeded stream of queries under a law; counts what a cache could at best have known."""

    def __init__(self, queries: Iterable[str], law: Law, seed: int) -> None:
        supply = distinct_queries(queries)
        self._head = list(islice(supply, law.ranks))
        if len(self._head) < law.ranks:
            raise BenchmarkError(f"{law.ranks:,} distinct queries are needed, also in pairs; found {len(self._head):,}")
        self._unseen = supply
        self._cumulative = law.cumulative()
        self._rng = np.random.default_rng(seed)
        self._times_drawn = np.zeros(law.ranks, np.int64)
        self.drawn = 0
        self.repeated = 0
        """Of those drawn, how many had been drawn before."""

    def stream(self) -> Iterator[str]:
        """The queries, without an end."""
        while True:
            for rank in np.searchsorted(self._cumulative, self._rng.random(CHUNK)).tolist():
                yield self._query(rank)

    def share(self, head: int) -> float:
        """Share of the drawn queries that are among the `head` most frequent."""
        return float(np.sum(self._times_drawn[:head])) / self.drawn

    def _query(self, rank: int) -> str:
        self.drawn += 1
        if rank >= len(self._head):
            return next(self._unseen)
        self.repeated += bool(self._times_drawn[rank])
        self._times_drawn[rank] += 1
        return self._head[rank]
