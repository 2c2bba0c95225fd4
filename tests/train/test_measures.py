"""Measures on rankings small enough to count by hand."""

import numpy as np
import pytest

from train.measures import difference, judged_share, measure_rankings, overlap, retention

RANKINGS = np.array([[4, 1, 2, 3, 0, 5, 6, 7, 8, 9], [9, 8, 7, 6, 5, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]])


def test_quality_by_hand():
    grades = [{4: 2, 2: 2, 50: 2}, {9: 1, 0: 0}, {3: 0}]
    values = measure_rankings(RANKINGS, grades, 10)
    assert values["P(rel=2)@10"] == {0: pytest.approx(0.2)}
    assert values["R(rel=2)@10"] == {0: pytest.approx(2 / 3)}
    deeper = measure_rankings(RANKINGS, grades, 4)
    assert list(deeper) == ["P(rel=2)@10", "P(rel=2)@4", "R(rel=2)@4", "nDCG@10"]
    assert deeper["P(rel=2)@4"] == {0: pytest.approx(0.5)}
    gains = (2 / np.log2(2) + 2 / np.log2(4)) / (2 / np.log2(2) + 2 / np.log2(3) + 2 / np.log2(4))
    assert values["nDCG@10"] == {0: pytest.approx(gains), 1: pytest.approx(1)}


def test_retention_is_a_ratio_of_means_with_an_interval_over_queries():
    teacher = dict.fromkeys(range(200), 1.0)
    student = {query: 0.8 if query % 2 else 1.0 for query in range(200)}
    found = retention(student, teacher)
    assert found.value == pytest.approx(0.9)
    spread = 1.96 * 0.1 / np.sqrt(200)  # the standard deviation of a query's share is 0.1
    assert found.low == pytest.approx(0.9 - spread, abs=0.003)
    assert found.high == pytest.approx(0.9 + spread, abs=0.003)


def test_a_student_that_loses_the_same_everywhere_has_no_spread():
    teacher = {query: 0.1 * query for query in range(1, 50)}
    found = retention({query: 0.5 * value for query, value in teacher.items()}, teacher)
    assert (found.low, found.value, found.high) == pytest.approx((0.5, 0.5, 0.5))


def test_overlap_counts_what_two_rankings_share_in_any_order():
    assert overlap(np.array([[1, 2, 3, 4], [1, 2, 3, 4]]), np.array([[4, 3, 2, 9], [5, 6, 7, 8]])) == 3 / 8


def test_a_difference_is_of_the_queries_that_both_have():
    apart = difference({1: 1.0, 2: 0.5, 3: 0.5}, {2: 0.25, 3: 0.25, 4: 1.0})
    assert (apart.value, apart.low, apart.high) == (0.25, 0.25, 0.25)
    some = difference(dict.fromkeys(range(100), 1.0), {query: float(query % 2) for query in range(100)})
    assert some.value == 0.5
    assert some.low == pytest.approx(0.4, abs=0.03)  # 0.5 less 1.96 standard errors of 0.05
    assert some.high == pytest.approx(0.6, abs=0.03)


def test_nothing_is_a_share_of_a_teacher_that_found_nothing():
    found = retention({0: 0.5, 1: 0.0}, {0: 0.0, 1: 0.0})
    assert np.isnan([found.value, found.low, found.high]).all()


def test_there_is_no_difference_without_a_query_that_both_have():
    for apart in (difference({}, {}), difference({1: 1.0}, {2: 1.0})):
        assert np.isnan([apart.value, apart.low, apart.high]).all()


def test_the_judged_share_is_of_the_ten_best_whatever_their_grade():
    assert judged_share(RANKINGS, [{4: 2, 1: 0, 50: 2}, {}, dict.fromkeys(range(10), 1)]) == pytest.approx(12 / 30)
