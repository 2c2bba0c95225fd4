"""Counting what became of requests."""

import math

import numpy as np
import pytest

from benchmarks.open_load import OpenLoad
from benchmarks.stretches import Stretches

NAN = math.nan


def load(status: list[int], sent_s: list[float], done_s: list[float]) -> OpenLoad:
    arrays = (np.zeros(len(status)), np.array(sent_s), np.array(done_s), np.array(status))
    return OpenLoad(1.0, *arrays, bodies=[], busy_share=0.0)


def test_a_refused_connection_is_a_failure_but_nothing_that_the_server_lost():
    stretches = Stretches([load([200, 0, 0, 503], [0.0, NAN, 0.1, 0.2], [0.5, NAN, NAN, 0.3])])
    assert (stretches.requests, stretches.failed, stretches.lost) == (4, 3, 2)


def test_percentiles_are_of_all_answers_200_together():
    stretches = Stretches([load([200], [0.0], [0.010]), load([200, 504], [0.0, 0.0], [0.030, 9.0])])
    assert stretches.latency_ms(50) == pytest.approx(20.0)
    assert stretches.latency_ms(100) == pytest.approx(30.0)


def test_other_statuses_than_200_are_named():
    assert Stretches([load([200, 503, 503], [0.0] * 3, [0.1] * 3)]).cells()[-1] == "2 × 503"
