"""The canary's judge, on simulated streams of requests."""

import random
from collections.abc import Iterator

import pytest

from service.canary import Breach, CanaryGuard
from service.settings import CanarySettings
from tests.service.small_artifacts import pair


def bounds(**changes: float) -> CanarySettings:
    given = pair("canary", "e", "i").model_dump() | {"share": 0.1}  # type: ignore[arg-type]
    return CanarySettings(**(given | changes))


def latencies(seed: int, *, slower: float = 1.0) -> Iterator[float]:
    """Log-normal around 5 ms, as a server's are; a tenth of the answers take three times as long."""
    source = random.Random(seed)
    while True:
        yield source.lognormvariate(0, 0.4) * 0.005 * (3 if source.random() < 0.1 else 1) * slower


def stream(
    guard: CanaryGuard,
    requests: int,
    *,
    share: float,
    slower: float = 1.0,
    failing: float = 0.0,
    all_failing: float = 0.0,
) -> tuple[int, Breach] | None:
    """Send requests, and give the canary's count at which it was stopped."""
    source, ours, theirs = random.Random(1), latencies(2, slower=slower), latencies(3)
    count = 0
    for _ in range(requests):
        canary = source.random() < share
        count += canary
        if source.random() < all_failing + (failing if canary else 0):
            breach = guard.failed("internal_error", canary=canary)
        else:
            breach = guard.answered(next(ours if canary else theirs), canary=canary)
        if breach is not None:
            return count, breach
    return None


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 1.0])
def test_a_canary_like_stable_is_never_stopped(share: float):
    assert stream(CanaryGuard(bounds()), 300_000, share=share) is None


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_three_times_as_slow_is_stopped_at_the_first_judgement(share: float):
    stopped = stream(CanaryGuard(bounds(min_requests=500)), 300_000, share=share, slower=3.0)
    assert stopped is not None
    assert (stopped[0], stopped[1].reason) == (500, "latency")
    assert "times stable's 95th percentile" in stopped[1].sentence


def test_a_smaller_difference_takes_more_requests():
    stopped = stream(CanaryGuard(bounds(min_requests=500)), 300_000, share=0.1, slower=1.9)
    assert stopped is not None
    assert 500 < stopped[0] <= 5_000


def test_a_little_slower_is_within_the_bound():
    assert stream(CanaryGuard(bounds()), 200_000, share=0.2, slower=1.2) is None
    assert stream(CanaryGuard(bounds(max_latency_ratio=1.0)), 200_000, share=0.2, slower=1.4) is not None


def test_failures_stop_it_before_it_has_had_its_requests():
    stopped = stream(CanaryGuard(bounds(max_error_ratio=0.02, min_requests=500)), 10_000, share=0.1, failing=1.0)
    assert stopped is not None
    # 2 % of 500 are 10, with a standard error of 3.1: 5 of them more are 25.7, whatever the rest does.
    assert stopped[0] in {26, 27, 28}  # and a little for what stable's requests leave open
    assert stopped[1].reason == "errors"
    assert f"{stopped[0]} of {stopped[0]} requests failed" in stopped[1].sentence


def test_failures_that_stable_has_too_are_not_the_canarys():
    assert stream(CanaryGuard(bounds()), 100_000, share=0.2, all_failing=0.1) is None
    stopped = stream(CanaryGuard(bounds()), 100_000, share=0.2, all_failing=0.1, failing=0.1)
    assert stopped is not None
    assert stopped[1].reason == "errors"


def test_a_canary_that_has_all_traffic_is_judged_by_its_failures_alone():
    assert stream(CanaryGuard(bounds()), 20_000, share=1.0, slower=10.0) is None
    assert stream(CanaryGuard(bounds()), 20_000, share=1.0, failing=0.05) is not None


def test_a_callers_mistakes_and_a_full_service_do_not_count():
    guard = CanaryGuard(bounds(min_requests=20, max_error_ratio=0.0))
    for outcome in ("overloaded", "invalid_request", "cancelled", "not_ready"):
        assert guard.failed(outcome, canary=True) is None
    assert guard.failed("deadline_exceeded", canary=True) is not None


def test_going_bad_late_is_noticed():
    guard = CanaryGuard(bounds())
    assert stream(guard, 100_000, share=0.1) is None
    assert stream(guard, 100_000, share=0.1, slower=3.0) is not None
