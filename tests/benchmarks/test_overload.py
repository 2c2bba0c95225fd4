import numpy as np
import pytest

from benchmarks.open_load import FAILED, OpenLoad
from benchmarks.overload import Findings, Phase, degraded_share, recovery_s, summary, unanswered_share

USUAL_P99_MS = 10.0


def load_of(latency_s: list[float], status: list[int], seconds: float, bodies: list[bytes] | None = None) -> OpenLoad:
    """Arrivals evenly over `seconds`, none on the edge of a window, sent in time."""
    intended = (np.arange(len(status)) + 0.5) * seconds / max(1, len(status))
    done = np.where(np.array(status) == FAILED, np.nan, intended + np.array(latency_s))
    return OpenLoad(seconds, intended, intended, done, np.array(status), bodies or [], 0.5)


def recovering(bad: int, *, status: int, latency_s: float) -> OpenLoad:
    """300 arrivals over 3 s; the first `bad` are answered so, the others as usual."""
    good = 300 - bad
    return load_of([latency_s] * bad + [0.005] * good, [status] * bad + [200] * good, seconds=3)


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        (recovering(0, status=200, latency_s=0.005), 0.0),
        (recovering(62, status=503, latency_s=0.001), 0.65),
        (recovering(63, status=200, latency_s=0.016), 0.65),
        (recovering(62, status=200, latency_s=0.014), 0.0),
        (recovering(62, status=FAILED, latency_s=0.0), 0.65),
        (recovering(300, status=200, latency_s=0.016), None),
    ],
    ids=["never overloaded", "refuses", "slow", "within the tolerance", "fails", "never recovers"],
)
def test_recovery_is_the_first_window_in_which_all_is_as_usual(load: OpenLoad, expected: float | None):
    assert recovery_s(load, USUAL_P99_MS) == (None if expected is None else pytest.approx(expected))


def test_a_server_without_arrivals_has_not_recovered():
    assert recovery_s(load_of([], [], seconds=3), USUAL_P99_MS) is None


def test_answers_with_less_effort_are_told_by_their_coverage():
    bodies = [
        b'{"coverage":{"complete":true,"reason":null,"degraded":[]}}',
        b'{"coverage":{"complete":true,"reason":null,"degraded":["smaller_ef_search"]}}',
        b'{"coverage":{"complete":false,"reason":"degraded"}}',
        b'{"coverage":{"complete":false,"reason":"index_smaller_than_top_k"}}',
        b'{"type":"overloaded","detail":"no \\"degraded\\" answer either"}',
        b"",
    ]
    load = load_of([0.01] * 6, [200, 200, 200, 200, 503, FAILED], seconds=1, bodies=bodies)
    assert degraded_share(load) == pytest.approx(2 / 6)


@pytest.mark.parametrize(
    ("encoded", "answered", "expected"),
    [(1_000, 950, 0.05), (1_000, 1_000, 0.0), (10, 12, 0.0), (0, 0, 0.0)],
    ids=["some in vain", "none in vain", "answered from a cache", "nothing encoded"],
)
def test_what_was_encoded_in_vain_is_what_no_client_got(encoded: int, answered: int, expected: float):
    assert unanswered_share(encoded, answered) == pytest.approx(expected)


def test_the_last_line_relates_each_overload_to_the_capacity_before_it():
    usual = Phase(load_of([0.01] * 50, [200] * 50, seconds=1), capacity_qps=100)
    twice = Phase(load_of([0.02] * 90 + [0.001] * 110, [200] * 90 + [503] * 110, seconds=1), capacity_qps=100)
    tenfold = Phase(load_of([0.02] * 90 + [0.2] * 10 + [0.001] * 900, [200] * 100 + [503] * 900, 1), capacity_qps=120)
    recovering = Phase(load_of([0.001] * 25 + [0.01] * 75, [503] * 25 + [200] * 75, seconds=2), capacity_qps=120)
    findings = Findings(usual, {2: twice, 10: tenfold}, recovering, twice, 0.0312, 1.0449)
    assert summary(findings, deadline_s=0.05) == {
        "goodput": {"2": 0.9, "10": 0.75},
        "late": 0.1,
        "recovery_s": 0.5,
        "rss_growth": 1.045,
        "disconnected_encode_share": 0.031,
    }
