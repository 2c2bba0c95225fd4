"""Ids in memory: whole, whatever their lengths, and narrow although some are long."""

import json
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index import ids
from index.ad_lookup import AdLookup
from index.ids import IdColumn

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=256)


def read(column: IdColumn, rows: Sequence[int]) -> list[str]:
    return list(map(json.loads, column.take(np.array(rows, dtype=np.int64))))


@given(st.lists(texts, unique=True, max_size=30), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_ids_are_as_they_were_given(given_ids: list[str], chance):
    column = IdColumn(given_ids)
    assert list(map(json.loads, column.all())) == given_ids
    rows = chance.choices(range(len(given_ids)), k=2 * len(given_ids)) if given_ids else []
    assert read(column, rows) == [given_ids[row] for row in rows]
    assert AdLookup(column).find(given_ids) == list(range(len(given_ids)))


@pytest.fixture(params=[1, 7, 5_000])
def steps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "_ROWS_A_STEP", request.param)


@pytest.mark.usefixtures("steps")
def test_a_few_long_ids_make_no_row_wider():
    given_ids = [f"ad-{number:04d}" for number in range(1_000)]
    for row in range(100, 1_000, 100):
        given_ids[row] += "é\0" * 120
    column = IdColumn(given_ids)
    assert column.short.itemsize == len('"ad-0001"')
    assert sorted(column.long) == list(range(100, 1_000, 100))
    assert read(column, [99, 100, 101, 0, 100]) == [given_ids[row] for row in (99, 100, 101, 0, 100)]
    assert AdLookup(column).find([given_ids[500], "ad-0500", given_ids[501]]) == [500, None, 501]
