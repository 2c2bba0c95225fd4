"""What a batch of pairs knows of its ads."""

import numpy as np

from train.contrast import pair_batch
from train.data import LabelledQueries, Pair


def test_an_ad_is_known_by_its_grade_or_by_reading_as_the_own_ad():
    labelled = LabelledQueries(["a", "b", "c"], ["first", "second", "third"], [{0: 2, 1: 1}, {1: 2, 2: 0}, {2: 2}])
    texts = ["garden chair", "oak table", "garden chair"]
    negatives = np.array([[1], [0], [1]])
    batch = pair_batch([Pair(2, 2), Pair(0, 0), Pair(1, 1)], labelled, texts, negatives)
    assert (batch.queries, batch.rows) == (["third", "first", "second"], [2, 0, 1])
    assert batch.negatives.tolist() == [[1], [1], [0]]
    # Ads 2 and 0 read alike; ad 1 is partly right for the first query, and ad 2 wrong for the second by judgment.
    assert batch.known.tolist() == [[True, True, False], [True, True, True], [False, False, True]]
