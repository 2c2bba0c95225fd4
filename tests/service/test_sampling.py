"""Sampling: the share that was asked for, by seed; and the mean of the last values."""

import itertools

import pytest

from service.sampling import RollingMean, Sampler


@pytest.mark.parametrize("share", [0.001, 0.01, 0.3, 0.9])
def test_the_share_is_picked_and_at_random(share: float):
    sampler = Sampler(share, seed=4)
    calls = round(2_000 / share)
    picked = [number for number in range(calls) if sampler.picks()]
    assert len(picked) == pytest.approx(2_000, abs=4 * 2_000**0.5)
    gaps = [after - before for before, after in itertools.pairwise(picked)]
    assert sum(gap == 1 for gap in gaps) / len(gaps) == pytest.approx(share, abs=0.05)


@pytest.mark.parametrize(("share", "picks"), [(0, 0), (1, 100)])
def test_none_and_all_are_shares_too(share: float, picks: int):
    sampler = Sampler(share, seed=0)
    assert sum(sampler.picks() for _ in range(100)) == picks


def test_the_same_seed_picks_the_same_calls_and_another_others():
    first, again, other = (Sampler(0.2, seed) for seed in (1, 1, 2))
    picks = [(first.picks(), again.picks(), other.picks()) for _ in range(200)]
    assert [one for one, _, _ in picks] == [two for _, two, _ in picks]
    assert [one for one, _, _ in picks] != [three for _, _, three in picks]


def test_a_rolling_mean_forgets_the_oldest():
    mean = RollingMean(3)
    assert [mean.add(value) for value in (3, 5, 1, 9)] == [3, 4, 3, 5]
