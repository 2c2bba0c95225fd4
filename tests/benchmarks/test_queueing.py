"""The queue of the bare pipeline against Erlang's formula."""

from math import exp, factorial, floor

import pytest

from benchmarks.queueing import least_p99_ms


def waits_at_most(t: float, service: float, rate: float) -> float:
    """Of arrivals at a queue with constant service: the M/D/1 queue (Erlang, 1909)."""
    terms = (
        (rate * (k * service - t)) ** k / factorial(k) * exp(rate * (t - k * service)) for k in range(floor(t) + 1)
    )
    return (1 - rate * service) * sum(terms)


def test_lone_queries_of_one_length_wait_as_erlang_says():
    p99_ms = least_p99_ms({1: [1.0]}, rate=600, seed=0)
    assert waits_at_most(p99_ms - 1, 1.0, 0.6) == pytest.approx(0.99, abs=0.001)


def test_batches_that_save_nothing_are_not_formed():
    alone = least_p99_ms({1: [1.0]}, rate=600, seed=0)
    assert least_p99_ms({1: [1.0], 2: [2.0], 4: [4.0]}, rate=600, seed=0) == alone


def test_batches_that_save_time_are():
    assert least_p99_ms({1: [1.0], 2: [1.1], 4: [1.2]}, rate=600, seed=0) < 3.5
    assert least_p99_ms({1: [1.0], 4: [1.2]}, rate=2000, seed=0) < 5  # more than lone queries could ever be
