"""What is learned from batches that ran."""

import numpy as np
import pytest

from service.cost import BatchCost, CostModel

A_S, B_S, C_S = 0.4e-3, 0.08e-3, 0.5e-3


def batch(lengths: list[int], queries: int | None = None, factor: float = 1.0) -> BatchCost:
    """A batch that takes what the true costs say, times a factor."""
    queries = len(lengths) if queries is None else queries
    padded = max(lengths, default=0) * len(lengths)
    encode_s = (A_S + B_S * padded) * factor if lengths else 0.0
    return BatchCost(lengths, encode_s, queries, C_S * queries * factor)


def learned(*batches: BatchCost) -> CostModel:
    model = CostModel()
    for one in batches:
        model.learn(one)
    return model


def test_padding_is_charged():
    assert batch([5, 9, 7]).padded_tokens == 27
    assert BatchCost([], 0.0, 3, 0.1).padded_tokens == 0


def test_before_any_batch_everything_is_free():
    model = CostModel()
    assert (model.batch_s(8, 64), model.backlog_s(100, 800, 8)) == (0.0, (0.0, 0.0))


def test_two_lengths_are_enough_to_tell_a_runs_cost_from_a_tokens():
    model = learned(batch([8]), batch([16]))
    assert model.batch_s(1, 40) == pytest.approx(A_S + 40 * B_S + C_S)
    assert model.batch_s(8, 0) == pytest.approx(8 * C_S)  # cached: nothing is encoded


def test_one_length_alone_predicts_that_length():
    model = learned(*[batch([8])] * 20)
    assert model.batch_s(1, 8) == pytest.approx(A_S + 8 * B_S + C_S)
    assert 0 < model.batch_s(1, 16) <= 2 * model.batch_s(1, 8)


def test_a_backlog_costs_its_runs_its_tokens_and_its_queries():
    model = learned(batch([8]), batch([16]))
    assert model.backlog_s(20, 160, 5) == pytest.approx((4 * A_S + 160 * B_S, 20 * C_S))
    assert model.backlog_s(20, 0, 5) == pytest.approx((0, 20 * C_S))
    assert model.backlog_s(0, 0, 5) == (0, 0)


def test_noise_averages_out():
    random = np.random.default_rng(1)
    batches = [
        batch([int(length)] * int(count), factor=factor)
        for length, count, factor in zip(
            random.integers(4, 40, 400), random.integers(1, 9, 400), random.normal(1, 0.2, 400), strict=True
        )
    ]
    model = learned(*batches)
    assert model.batch_s(4, 80) == pytest.approx(A_S + 80 * B_S + 4 * C_S, rel=0.15)


def test_a_prediction_is_never_negative():
    """Longer ones that took less time, as happens beside other work."""
    model = learned(BatchCost([40], 1e-3, 1, 0.0), BatchCost([4], 9e-3, 1, 0.0))
    assert model.batch_s(1, 1) > 0
    assert model.batch_s(1, 1_000) > 0


def test_what_was_true_is_forgotten_when_the_machine_gets_slower():
    lengths = [[8], [16] * 4, [9] * 8]
    model = learned(*(batch(lengths[number % 3]) for number in range(300)))
    for number in range(200):
        model.learn(batch(lengths[number % 3], factor=3))
    assert model.batch_s(4, 64) == pytest.approx(3 * (A_S + 64 * B_S + 4 * C_S), rel=0.1)


LENGTHS = [[8], [16] * 4, [9] * 8]
USUAL_S = A_S + 64 * B_S + 4 * C_S


def learned_well() -> CostModel:
    return learned(*(batch(LENGTHS[number % 3]) for number in range(300)))


@pytest.mark.parametrize("lengths", [*LENGTHS, []], ids=["one", "four", "eight", "cached"])
def test_a_batch_that_took_a_thousand_times_as_long_teaches_next_to_nothing(lengths: list[int]):
    """As one does in which the whole process stood still."""
    model = learned_well()
    model.learn(batch(lengths, queries=len(lengths) or 8, factor=1_000))
    assert model.batch_s(4, 64) <= 1.4 * USUAL_S


@pytest.mark.parametrize("factor", [10, 100])
def test_a_change_that_lasts_is_believed_however_large_it_is(factor: float):
    model = learned_well()
    batches = 0
    while model.batch_s(4, 64) < factor * USUAL_S / 2:
        model.learn(batch(LENGTHS[batches % 3], factor=factor))
        batches += 1
    assert batches <= 100
