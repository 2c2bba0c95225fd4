"""Lists of ads, best first: cut, merged, thinned."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Ranked:
    """Ads that pass, in falling score, for equal ones in rising row."""

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    complete: bool
    """Whether no other ad passes."""


NOTHING = Ranked(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32), complete=True)


def best_of(rows: NDArray[np.int64], scores: NDArray[np.float32], need: int, *, all_scored: bool = True) -> Ranked:
    """The best `need` of some ads, each of which is there once.

    Args:
        rows: shape (n,).
        scores: shape (n,).
        need: at least 1.
        all_scored: whether no other ad passes.
    """
    complete = all_scored and len(rows) <= need
    if len(rows) > need:
        kept = np.argpartition(-scores, need - 1)[:need]
        rows, scores = rows[kept], scores[kept]
    order = np.lexsort((rows, -scores))
    return Ranked(rows[order], scores[order], complete)


def merged(parts: Sequence[Ranked], need: int) -> Ranked:
    """The best `need` of several lists, none longer than that; an ad that is in more than one counts once."""
    some = [part for part in parts if len(part.rows)]
    if len(some) == 1:
        return replace(some[0], complete=all(part.complete for part in parts))
    rows, first = np.unique(np.concatenate([part.rows for part in parts]), return_index=True)
    scores = np.concatenate([part.scores for part in parts])[first]
    return best_of(rows, scores, need, all_scored=all(part.complete for part in parts))
