"""Samples and what is made of them, against figures worked out by hand."""

import random

import numpy as np
import pytest

from loadtest.load import Load
from loadtest.recorder import COLUMNS, Recorder
from loadtest.result import summarize, timeline
from loadtest.samples import Samples

TIMINGS = {"tokenize": 0.1, "queue": 0.2, "encode": 1.0, "search": 0.4, "total": 1.7}
ANSWER = {"timings_ms": TIMINGS, "coverage": {"complete": True, "reason": None}, "cached": True}
OPEN = Load("open", 10, rate=10)


def recorded(*rows: tuple[float, float, float, str]) -> dict[str, object]:
    recorder = Recorder()
    for due_s, late_s, latency_s, outcome in rows:
        recorder.add(due_s, late_s, latency_s, outcome, ANSWER if outcome == "ok" else None)
    return recorder.take()


def test_processes_that_number_outcomes_differently_are_put_together():
    one = recorded((0, 0, 0.01, "503 overloaded"), (1, 0, 0.01, "ok"))
    other = recorded((2, 0, 0.01, "504 deadline_exceeded"), (3, 0, 0.01, "503 overloaded"))
    samples = Samples.of([one, other])
    assert samples.errors() == {"503 overloaded": 2, "504 deadline_exceeded": 1}
    assert samples.error_share == 0.75
    assert samples.rows.shape == (4, len(COLUMNS))


def test_a_phase_counts_what_was_answered_while_it_lasted():
    phase = summarize(OPEN, 5, Samples.of([recorded((0, 0, 0.01, "ok"), (9.9, 0, 0.2, "ok"), (3, 0, 0.5, "500 x"))]))
    assert (phase.requests, phase.offered_qps, phase.achieved_qps) == (3, 0.3, 0.1)
    assert phase.latency_ms["p50"] == pytest.approx(200)
    assert phase.stages_ms["encode"]["p99"] == 1.0
    assert phase.cached_share == 1
    assert sum(phase.histogram.counts) == 2


def test_a_second_has_what_was_due_in_it_and_what_was_answered_in_it():
    rows = timeline(Samples.of([recorded((0.1, 0, 0.01, "ok"), (0.5, 0, 1.0, "ok"), (1.2, 0, 0.1, "500 x"))]))
    assert [(row.offered, row.errors, row.achieved) for row in rows] == [(2, 0, 1), (1, 1, 1)]
    assert rows[0].p99_ms == pytest.approx(1_000)
    assert rows[1].p50_ms is None


@pytest.mark.parametrize(
    ("late_s", "busy_share", "limits"),
    [(0.0005, 0.3, False), (0.003, 0.3, False), (0.02, 0.3, True), (0.0, 0.95, True)],
    ids=["healthy", "late, but little beside the latency", "late", "busy"],
)
def test_a_generator_that_is_late_or_busy_is_said_to_limit(late_s: float, busy_share: float, limits: bool):
    samples = Samples.of([recorded(*[(second, late_s, 0.05, "ok") for second in range(10)])])
    samples.busy_share = busy_share
    assert summarize(OPEN, 0, samples).generator.limits == limits


def test_arrivals_of_several_sources_add_up_to_the_rate():
    load = Load("shared", 100, rate=50, users=2)
    due = np.concatenate([list(load.due_s(random.Random(seed))) for seed in range(2)])
    assert len(due) == pytest.approx(5_000, rel=0.05)
    gaps = np.diff(np.sort(due))
    assert np.std(gaps) == pytest.approx(np.mean(gaps), rel=0.05)  # as of exponential gaps
    assert due.max() < 100
