"""Labels number the vectors that a graph was ever given; positions number those of them that can still be found."""

import numpy as np
from numpy.typing import NDArray

NO_LABELS = np.empty(0, dtype=np.int64)


def positions_of(label_count: int, dead: NDArray[np.int64]) -> NDArray[np.int64]:
    """By label; of those that are dead, given in rising order, the position says nothing."""
    labels = np.arange(label_count)
    return labels - np.searchsorted(dead, labels)


def labels_of(label_count: int, dead: NDArray[np.int64]) -> NDArray[np.int64]:
    """By position."""
    return np.setdiff1d(np.arange(label_count), dead, assume_unique=True)
