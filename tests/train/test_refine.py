"""How refinement shares its steps out among its rounds."""

import pytest

from train.data import Pair
from train.refine import share


@pytest.mark.parametrize("rounds", [1, 2, 3, 9])
def test_the_rounds_go_through_the_plan_once_together(rounds: int):
    batches = [[Pair(number, number)] for number in range(7)]
    parts = [share(batches, number, rounds) for number in range(rounds)]
    assert [batch for part in parts for batch in part] == batches
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
