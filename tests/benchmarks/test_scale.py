"""What the scale table is made of: embeddings that are alike from run to run, and guesses that say what they are."""

import numpy as np
import pytest

from benchmarks.clusters import clustered
from benchmarks.scale import BY_POWER, LINEAR, extrapolate, of_backend


def test_made_up_embeddings_are_normalised_alike_every_time_and_clustered():
    first, second = np.empty((2, 2000, 64), dtype=np.float32)
    clustered(first)
    clustered(second)
    assert first.tolist() == second.tolist()
    assert np.linalg.norm(first, axis=1) == pytest.approx(1, abs=1e-5)
    anything = np.random.default_rng(0).standard_normal((2000, 64))
    anything /= np.linalg.norm(anything, axis=1, keepdims=True)
    assert tenth_nearest(first) > tenth_nearest(anything) + 0.2


def tenth_nearest(vectors: np.ndarray) -> float:
    return float(np.median(np.sort(vectors @ vectors.T, axis=1)[:, -10]))


def figures(backend: str, ads: int, power: float) -> dict:
    return {"backend": backend, "ads": ads, "ann_recall": 0.96} | dict.fromkeys((*BY_POWER, *LINEAR), ads**power)


def test_a_size_that_was_not_measured_lies_on_the_curve_through_the_two_largest():
    measured = [figures("faiss", 1000, 3.0), figures("faiss", 10_000, 1.5), figures("faiss", 100_000, 1.5)]
    guessed = extrapolate(measured, 1_000_000)
    assert guessed["extrapolated"]
    assert [guessed[name] for name in BY_POWER] == [pytest.approx(1_000_000**1.5)] * len(BY_POWER)
    rise = (100_000**1.5 - 10_000**1.5) / 90_000
    assert [guessed[name] for name in LINEAR] == [pytest.approx(100_000**1.5 + 900_000 * rise)] * len(LINEAR)


def test_backends_are_extrapolated_apart():
    both = [figures("faiss", 10, 1.0), figures("hnswlib", 10, 2.0), figures("faiss", 100, 1.0)]
    assert [one["ads"] for one in of_backend(both, "faiss")] == [10, 100]
