"""How much of a segment passes, estimated from some of its rows."""

import numpy as np
from numpy.typing import NDArray

from index.filters import Rule

SIZE = 1024
"""Rows looked at; of 1 % the estimate is right to a third."""
STALE_SHARE = 0.01
"""Of a segment's ads so many may have been paused or resumed before their share is counted again."""


class Sample:
    """Rows of one segment, drawn once and for all."""

    def __init__(self, rows: NDArray[np.int64]) -> None:
        """Draw from all rows of a segment."""
        size = min(len(rows), SIZE)
        self._rows = np.sort(np.random.default_rng(0).choice(rows, size, replace=False))
        self._stale_after = STALE_SHARE * len(rows)
        self._servable: tuple[int, float] | None = None
        """The state changes there had been when it was counted, and the share that is servable."""

    def share(self, rule: Rule) -> float:
        """Share of the segment that passes; most requests bar nothing, and for those it is not counted each time."""
        if not rule.bars_nothing:
            return self._count(rule)
        changes, servable = rule.columns.state_changes, self._servable
        if servable is None or changes - servable[0] > self._stale_after:
            servable = self._servable = (changes, self._count(rule))
        return servable[1]

    def _count(self, rule: Rule) -> float:
        return int(np.count_nonzero(rule.passes(self._rows))) / len(self._rows)
