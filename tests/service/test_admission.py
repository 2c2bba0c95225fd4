"""Predictions held against time budgets."""

import math

import pytest

from service.admission import Admission, Margin
from service.errors import PREDICTED_WAIT_HEADER, Overloaded
from service.schedule import Forecast
from service.settings import StepSettings

STEPS = (StepSettings(name="cached_only", at_pressure=0.9), StepSettings(name="smaller_ef_search", at_pressure=0.5))


def busy(predicted_s: float) -> Forecast:
    return Forecast(full=False, idle=False, predicted_s=predicted_s)


@pytest.mark.parametrize(
    ("pressure", "cached", "steps"),
    [
        (0.49, False, ()),
        (0.5, False, ("smaller_ef_search",)),
        (0.89, False, ("smaller_ef_search",)),
        (0.9, True, ("smaller_ef_search", "cached_only")),
        (1.0, True, ("smaller_ef_search", "cached_only")),
    ],
)
def test_answers_get_cheaper_with_the_pressure_step_by_step(pressure: float, cached: bool, steps: tuple[str, ...]):
    assert Admission(STEPS).admit(busy(pressure * 0.1), 0.1, cached=cached) == steps


@pytest.mark.parametrize(
    ("forecast", "cached", "reason"),
    [
        (busy(0.101), True, "too late"),
        (busy(0.095), False, "asked before"),
        (Forecast(full=True, idle=False, predicted_s=0.01), True, "too many"),
    ],
    ids=["too late", "not cached", "full"],
)
def test_what_cannot_be_served_is_refused_with_the_reason(forecast: Forecast, cached: bool, reason: str):
    with pytest.raises(Overloaded, match=reason):
        Admission(STEPS).admit(forecast, 0.1, cached=cached)


def test_a_refusal_says_how_long_it_would_have_taken_and_when_to_come_back():
    with pytest.raises(Overloaded) as refusal:
        Admission(()).admit(busy(2.3), 0.1, cached=False)
    assert refusal.value.headers() == {"Retry-After": "3", PREDICTED_WAIT_HEADER: "2300"}


def test_an_idle_service_tries_whatever_is_predicted():
    admission = Admission(STEPS)
    admission.margin.learn(0.001, 100.0)
    assert admission.admit(Forecast(full=False, idle=True, predicted_s=9.0), 0.1, cached=False) == ()


@pytest.mark.parametrize("budget_s", [0.0, -0.001])
def test_a_budget_that_is_spent_is_too_little(budget_s: float):
    with pytest.raises(Overloaded, match="too late"):
        Admission(()).admit(busy(0.01), budget_s, cached=False)


def test_without_steps_there_are_full_answers_or_none():
    assert Admission(()).admit(busy(0.1), 0.1, cached=False) == ()


def test_predictions_that_come_true_need_no_margin():
    margin = Margin()
    for predicted_s in (0.01, 0.05, 0.002):
        margin.learn(predicted_s, predicted_s)
    assert margin.of(0.05) == 0


def test_the_margin_covers_what_predictions_lack_and_how_much_they_vary():
    steady, varying = Margin(), Margin()
    for number in range(200):
        steady.learn(0.04, 0.05)
        varying.learn(0.04, 0.05 + (0.01 if number % 2 else -0.01))
    assert steady.of(0.04) == pytest.approx(0.01, rel=0.01)
    assert varying.of(0.04) == pytest.approx(0.01 + 4 * 0.01, rel=0.15)


def test_who_waits_for_a_short_time_gets_less_of_a_margin_than_who_waits_for_long():
    margin = Margin()
    margin.learn(0.16, 0.24)
    assert margin.of(0.04) == pytest.approx(margin.of(0.16) / 2)


def test_a_hiccup_of_a_short_wait_is_not_scaled_up():
    margin = Margin()
    margin.learn(0.001, 0.5)
    assert margin.of(1.0) == pytest.approx(margin.of(0.001)) == pytest.approx((1 / 8 + 4 / 4) * 0.499)


def test_what_comes_sooner_than_predicted_makes_nothing_late():
    margin = Margin()
    for _ in range(200):
        margin.learn(0.05, 0.01)
    assert margin.of(0.05) == 0


def test_a_margin_that_was_learned_from_a_stall_is_gone_after_some_prompt_answers():
    margin = Margin()
    margin.learn(0.01, 60.0)
    answers = 0
    while margin.of(0.01) > 0.01:
        margin.learn(0.002, 0.002)
        answers += 1
    assert answers < 100


def test_a_prediction_of_nothing_can_be_learned_from():
    margin = Margin()
    margin.learn(0.0, 0.001)
    assert math.isfinite(margin.of(0.0))
