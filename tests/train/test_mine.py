"""Hard negatives: wrong by judgment first, then near the right ad but not too near, never a right one."""

import numpy as np

from train.data import LabelledQueries
from train.mine import judged_negatives, mine_negatives

# One query along the first axis; ad i has the cosine named.
COSINES = [0.8, 0.79, 0.7, 0.6, 0.5, 0.3, 0.1, 0.75]
ADS = np.array([[cosine, np.sqrt(1 - cosine**2)] for cosine in COSINES], dtype=np.float32)
QUERIES = np.array([[1.0, 0.0]], dtype=np.float32)
# Ad 0 is right, 2 partly right, 5 and 7 wrong by judgment.
LABELLED = LabelledQueries(["q"], ["query"], [{0: 2, 2: 1, 5: 0, 7: 0}])


def mine(count: int, band: tuple[float, float], seed: int = 1) -> list[int]:
    return mine_negatives(LABELLED, QUERIES, ADS, count=count, band=band, seed=seed)[0].tolist()


def test_judged_wrong_ads_come_first_the_nearest_ahead_and_the_band_follows():
    found = mine(4, (0.5, 0.95))  # 0.40 to 0.76 of cosine: ads 3 and 4, as 2 is partly right
    assert found[:2] == [7, 5]
    assert sorted(found[2:]) == [3, 4]


def test_what_the_band_does_not_hold_is_drawn_but_never_a_right_ad():
    for seed in range(20):
        found = mine(6, (0.9, 0.9), seed)
        assert found[:2] == [7, 5]
        assert not {0, 2} & set(found)


def test_negatives_by_judgment_alone():
    found = judged_negatives(LABELLED, len(ADS), count=4, seed=1)
    assert found.shape == (1, 4)
    assert {5, 7} == set(found[0, :2].tolist())
    assert not {0, 2} & set(found[0].tolist())
    assert judged_negatives(LABELLED, len(ADS), count=0, seed=1).shape == (1, 0)
