"""Which release answers a request."""

import random
from pathlib import Path

import pytest

from service.errors import InvalidRequestError, NotReadyError
from service.metrics import Metrics
from service.release import Release
from service.settings import CanarySettings
from service.traffic import Traffic, position


def release(name: str) -> Release:
    return Release(name, None, None, "m", "i")  # type: ignore[arg-type]


KNOWN = {"request-1": 0.477949128259967, "request-2": 0.2985675809861681}
"""By b2sum's algorithm: `hashlib.blake2b(id, digest_size=7, key=b"new")` over 2**56."""

STABLE, CANARY = release("old"), release("new")


def canary_settings(**changes: float) -> CanarySettings:
    return CanarySettings.model_validate({"name": "new", "encoder": Path("e"), "index": Path("i")} | changes)


def traffic(**changes: float) -> Traffic:
    made = Traffic(Metrics())
    made.split(STABLE, CANARY, canary_settings(**changes))
    return made


def test_before_there_is_a_release_requests_are_refused():
    with pytest.raises(NotReadyError, match="still being loaded"):
        Traffic(Metrics()).choose("id")


def test_without_a_canary_stable_answers_all():
    made = Traffic(Metrics())
    made.split(STABLE, None, None)
    assert {made.choose(str(number)) for number in range(1_000)} == {STABLE}


@pytest.mark.parametrize("share", [0.0, 0.0005, 0.01, 0.25, 1.0])
@pytest.mark.parametrize("ids", ["counting", "random"])
def test_the_canary_gets_its_share(share: float, ids: str):
    count, source, made = 100_000, random.Random(0), traffic(share=share)
    named = (f"req-{number}" if ids == "counting" else f"{source.getrandbits(64):x}" for number in range(count))
    chosen = sum(made.choose(one) is CANARY for one in named)
    five_sigma = 5 * (count * share * (1 - share)) ** 0.5
    assert abs(chosen - count * share) <= five_sigma


def test_the_same_id_falls_on_the_same_side_in_every_process():
    assert position("request-1", "new") == pytest.approx(KNOWN["request-1"], abs=1e-12)
    assert position("request-2", "new") == pytest.approx(KNOWN["request-2"], abs=1e-12)
    assert position("request-1", "newer") != position("request-1", "new")


def test_a_larger_share_keeps_those_who_had_the_canary():
    small, large = traffic(share=0.1), traffic(share=0.3)
    ids = [str(number) for number in range(2_000)]
    assert {one for one in ids if small.choose(one) is CANARY} < {one for one in ids if large.choose(one) is CANARY}


@pytest.mark.parametrize(
    ("asked", "expected"), [("stable", STABLE), ("canary", CANARY), ("old", STABLE), ("new", CANARY)]
)
def test_who_asks_gets_what_was_asked_for(asked: str, expected: Release):
    for share in (0.0, 1.0):
        assert traffic(share=share).choose("id", asked) is expected


def test_what_is_not_served_is_refused_by_the_headers_name():
    with pytest.raises(InvalidRequestError, match=r"X-HLM-Release: 'shadow' is not served; served are stable \(old\)"):
        traffic().choose("id", "shadow")
    made = Traffic(Metrics())
    made.split(STABLE, None, None)
    with pytest.raises(InvalidRequestError) as refused:
        made.choose("id", "canary")
    assert refused.value.errors[0]["field"] == "X-HLM-Release"


def test_an_aborted_canary_gets_nothing_until_its_settings_change():
    made = traffic(share=1.0, max_error_ratio=0.0)
    assert made.choose("id") is CANARY
    made.failed(CANARY, "internal_error")
    assert made.choose("id") is STABLE
    assert made.choose("id", "canary") is CANARY
    assert made.aborted is not None
    made.split(release("newer stable"), CANARY, canary_settings(share=1.0, max_error_ratio=0.0))
    assert made.share == 0
    made.split(STABLE, CANARY, canary_settings(share=0.5, max_error_ratio=0.0))
    assert (made.share, made.aborted) == (0.5, None)


def test_an_abort_counts_once():
    metrics = Metrics()
    made = Traffic(metrics)
    made.split(STABLE, CANARY, canary_settings(max_error_ratio=0.0))
    for _ in range(3):
        made.failed(CANARY, "deadline_exceeded")
    assert metrics.registry.get_sample_value("hlm_canary_aborts_total", {"reason": "errors"}) == 1


def test_what_was_seen_of_a_canary_outlives_changes_of_other_roles():
    """Such as the previous release being dropped; with a small share the canary would hardly ever be judged."""
    made = traffic(max_error_ratio=0.0, min_requests=20)
    for _ in range(19):
        made.answered(STABLE, 0.001)
        made.answered(CANARY, 1.0)
    made.split(STABLE, CANARY, canary_settings(max_error_ratio=0.0, min_requests=20))
    made.answered(CANARY, 1.0)
    assert made.aborted is not None
    assert made.aborted.reason == "latency"


def test_late_answers_of_a_release_that_was_replaced_do_not_count_as_stables():
    made = traffic(max_error_ratio=0.0, min_requests=20)
    for _ in range(20):
        made.answered(release("before"), 1.0)
        made.answered(STABLE, 0.001)
    for _ in range(20):
        made.answered(CANARY, 1.0)
    assert made.aborted is not None
