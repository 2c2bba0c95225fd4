"""The losses against calculations in numpy, written loop by loop."""

import numpy as np
import pytest
import torch

from train.losses import (
    contrastive,
    cosine_distance,
    cut,
    kernel_distance,
    matryoshka,
    score_divergence,
    squared_distance,
)

CHANCE = np.random.default_rng(3)


def unit(*shape: int) -> np.ndarray:
    drawn = CHANCE.standard_normal(shape)
    return drawn / np.linalg.norm(drawn, axis=-1, keepdims=True)


def tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(array) for array in arrays]


def nothing(negatives: np.ndarray) -> torch.Tensor:
    """What is known of negatives that are wrong, all of them."""
    return torch.zeros(negatives.shape[:2], dtype=torch.bool)


def by_hand(queries, ads, negatives, known, known_negatives, temperature, query_terms, ad_terms):
    """Z_i of the specification, term by term."""
    losses = []
    for i, query in enumerate(queries):
        own = query @ ads[i]
        terms = [(query @ negative, right) for negative, right in zip(negatives[i], known_negatives[i], strict=True)]
        for j in range(len(queries)):
            terms.append((query @ ads[j], known[i][j]))
            if query_terms:
                terms.append((query @ queries[j], i == j))
            if ad_terms:
                terms.append((ads[i] @ ads[j], known[i][j]))
        pushed = [score for score, right in terms if not right and score <= own + 0.1]
        total = np.exp(own / temperature) + sum(np.exp(score / temperature) for score in pushed)
        losses.append(-np.log(np.exp(own / temperature) / total))
    return np.mean(losses)


def test_both_ways_is_the_mean_with_ads_that_find_their_queries():
    queries, ads, none = unit(6, 8), unit(6, 8), unit(6, 0, 8)
    known = np.eye(6, dtype=bool)
    known[0, 3] = True
    found = contrastive(
        *tensors(queries, ads, none),
        known=torch.from_numpy(known),
        known_negatives=nothing(none),
        temperature=0.3,
        ad_terms=False,
        both_ways=True,
    )
    forth = by_hand(queries, ads, none, known, nothing(none), 0.3, query_terms=True, ad_terms=False)
    back = by_hand(ads, queries, none, known.T, nothing(none), 0.3, query_terms=False, ad_terms=False)
    assert float(found) == pytest.approx((forth + back) / 2, rel=1e-9)


@pytest.mark.parametrize("query_terms", [True, False], ids=["q-q", "no q-q"])
@pytest.mark.parametrize("ad_terms", [True, False], ids=["d-d", "no d-d"])
@pytest.mark.parametrize("negative_count", [0, 3])
def test_the_contrastive_loss_is_that_of_the_specification(query_terms: bool, ad_terms: bool, negative_count: int):
    queries, ads, negatives = unit(6, 8), unit(6, 8), unit(6, negative_count, 8)
    known = np.eye(6, dtype=bool)
    known[0, 3] = known[4, 1] = True
    known_negatives = CHANCE.random((6, negative_count)) < 0.3
    found = contrastive(
        *tensors(queries, ads, negatives),
        known=torch.from_numpy(known),
        known_negatives=torch.from_numpy(known_negatives),
        temperature=0.3,
        query_terms=query_terms,
        ad_terms=ad_terms,
    )
    expected = by_hand(queries, ads, negatives, known, known_negatives, 0.3, query_terms, ad_terms)
    assert float(found) == pytest.approx(expected, rel=1e-9)


def test_a_likely_false_negative_pulls_at_nothing():
    """An ad that fits a query better than its own by more than 0.1 is left out of the loss and of its gradient."""
    query = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    ads = torch.tensor([[0.6, 0.8], [1.0, 0.0]], requires_grad=True)  # the second's ad is the first's best
    none = torch.empty(2, 0, 2)
    loss = contrastive(
        query,
        ads,
        none,
        known=torch.eye(2, dtype=torch.bool),
        known_negatives=nothing(none.numpy()),
        temperature=1.0,
        ad_terms=False,
    )
    [gradient] = torch.autograd.grad(loss, ads)
    first = -np.log(np.exp(0.6) / (np.exp(0.6) + np.exp(0.0)))  # only the other query, of cosine 0, is left
    second = -np.log(np.exp(0.0) / (np.exp(0.0) + np.exp(0.0)))  # likewise, as the first's ad scores 0.8 > 0 + 0.1
    assert loss.item() == pytest.approx((first + second) / 2)
    assert gradient[1, 0] == 0


def test_without_a_margin_all_is_pushed_away():
    queries, ads, none = unit(6, 8), unit(6, 8), unit(6, 0, 8)
    found = contrastive(
        *tensors(queries, ads, none),
        known=torch.eye(6, dtype=torch.bool),
        known_negatives=nothing(none),
        temperature=0.3,
        query_terms=False,
        ad_terms=False,
        false_negative_margin=None,
    )
    scores = queries @ ads.T / 0.3
    assert float(found) == pytest.approx(np.mean(np.log(np.exp(scores).sum(1)) - np.diag(scores)), rel=1e-9)


def test_distances_to_the_teacher():
    student, teacher = unit(5, 4), unit(5, 4)
    a, b = tensors(student, teacher)
    squared = np.mean([np.sum((s - t) ** 2) for s, t in zip(student, teacher, strict=True)])
    assert float(squared_distance(a, b)) == pytest.approx(squared)
    assert float(cosine_distance(a, b)) == pytest.approx(squared / 2)
    kernel = np.mean([(student[i] @ student[j] - teacher[i] @ teacher[j]) ** 2 for i in range(5) for j in range(5)])
    assert float(kernel_distance(a, b)) == pytest.approx(kernel)


def test_only_the_kernel_is_blind_to_a_rotation():
    teacher = unit(5, 4)
    rotation = np.linalg.qr(CHANCE.standard_normal((4, 4)))[0]
    turned, straight = tensors(teacher @ rotation, teacher)
    assert float(kernel_distance(turned, straight)) == pytest.approx(0, abs=1e-12)
    assert float(squared_distance(turned, straight)) > 0.1


def test_divergence_of_the_scores():
    student, teacher, ads = unit(3, 4), unit(3, 4), unit(7, 4)

    def distribution(embedding: np.ndarray) -> np.ndarray:
        weights = np.exp(ads @ embedding / 0.2)
        return weights / weights.sum()

    pairs = [(distribution(t), distribution(s)) for s, t in zip(student, teacher, strict=True)]
    expected = np.mean([np.sum(p * np.log(p / q)) for p, q in pairs])
    assert float(score_divergence(*tensors(student, teacher, ads), 0.2)) == pytest.approx(expected)


def test_matryoshka_is_the_mean_over_normalised_beginnings():
    student, teacher = unit(5, 8), unit(5, 8)

    def at(dim: int) -> float:
        s, t = (part[:, :dim] / np.linalg.norm(part[:, :dim], axis=1, keepdims=True) for part in (student, teacher))
        return np.mean(np.sum((s - t) ** 2, axis=1))

    found = matryoshka(squared_distance, [2, 8], *tensors(student, teacher))
    assert float(found) == pytest.approx((at(2) + at(8)) / 2)
    assert cut(torch.from_numpy(student), 3).norm(dim=1).tolist() == pytest.approx([1] * 5)
