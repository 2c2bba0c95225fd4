"""What a batch of pairs knows of its ads."""

import numpy as np
import torch

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
    assert batch.known_negatives.tolist() == [[False], [True], [False]]


def test_a_hard_negative_that_reads_as_the_own_ad_is_known():
    """Judged wrong as it may be: whoever learns cannot tell the two."""
    labelled = LabelledQueries(["a"], ["first"], [{0: 2, 2: 0}])
    batch = pair_batch([Pair(0, 0)], labelled, ["chair", "table", "chair"], np.array([[1, 2]]))
    assert batch.known_negatives.tolist() == [[False, True]]


def test_a_batch_without_hard_negatives_has_none_that_are_known():
    labelled = LabelledQueries(["a"], ["first"], [{0: 2}])
    batch = pair_batch([Pair(0, 0)], labelled, ["chair"], np.empty((1, 0), dtype=np.int64))
    assert (batch.known_negatives.dtype, batch.known_negatives.shape) == (torch.bool, (1, 0))
