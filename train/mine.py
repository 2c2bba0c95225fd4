"""Hard negatives: ads that score nearly as high as the right one and are not known to be right."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from index.exact import exact_top_k
from terminal import progress
from train.data import LabelledQueries
from train.encoders import Embeddings

POOL = 200
"""Best ads of a query that are looked at, as in HARNESS-LM."""
_CHUNK = 512


def mine_negatives(
    labelled: LabelledQueries,
    queries: Embeddings,
    ads: Embeddings,
    *,
    count: int,
    band: tuple[float, float],
    seed: int,
) -> NDArray[np.int64]:
    """Rows of some hard negatives of each query, shape (n, count).

    Ads judged wrong come first, if they are among the best 200; then, by chance, ads whose score lies in the band. The
    paper takes those that a cross-encoder gives 0.2 to 0.5 without naming the cross-encoder; here the band is relative
    to the score of the query's best right ad, so that it holds for any teacher. A query that has too few of both is
    filled up with ads drawn from all.

    Args:
        labelled: the queries and what is known of their ads.
        queries: their embeddings, (n, dim).
        ads: of the whole inventory, (m, dim).
        count: how many each query gets.
        band: least and largest share of the best right ad's score.
        seed: of the choice.
    """
    chance = np.random.default_rng(seed)
    negatives = np.empty((len(queries), count), dtype=np.int64)
    with progress("Mining negatives", len(queries), "queries") as advance:
        for start in range(0, len(queries), _CHUNK):
            rows, scores = exact_top_k(queries[start : start + _CHUNK], ads, POOL)
            for query, (best, found) in enumerate(zip(rows, scores, strict=True), start):
                right = labelled.rows_of_grade(query, 1)
                reference = float((ads[right] @ queries[query]).max()) if right else float(found[0])
                chosen = _choose(labelled.grades[query], best, found / max(reference, 1e-6), band, chance)
                negatives[query] = _fill(chosen[:count], count, right, len(ads), chance)
            advance(len(rows))
    return negatives


def judged_negatives(labelled: LabelledQueries, ad_count: int, *, count: int, seed: int) -> NDArray[np.int64]:
    """The same from judgments alone: ads judged wrong, and others by chance, shape (n, count)."""
    chance = np.random.default_rng(seed)
    negatives = np.empty((len(labelled.texts), count), dtype=np.int64)
    for query in range(len(labelled.texts)):
        wrong = labelled.rows_of_grade(query, 0, 0)
        chosen = [wrong[position] for position in chance.permutation(len(wrong))][:count]
        negatives[query] = _fill(chosen, count, labelled.rows_of_grade(query, 1), ad_count, chance)
    return negatives


def _choose(
    grades: dict[int, int],
    best: NDArray[np.int64],
    shares: NDArray[np.float32],
    band: tuple[float, float],
    chance: np.random.Generator,
) -> list[int]:
    """What may serve, the most wanted first; `shares` are the scores of `best` over the right ad's."""
    wrong = [row for row in best.tolist() if grades.get(row) == 0]
    in_band = best[(shares >= band[0]) & (shares <= band[1])].tolist()
    unjudged = [row for row in in_band if row not in grades]
    return wrong + [unjudged[position] for position in chance.permutation(len(unjudged))]


def _fill(chosen: list[int], count: int, right: Sequence[int], ad_count: int, chance: np.random.Generator) -> list[int]:
    """Add ads drawn from all until there are `count`; of a tiny inventory the same may come twice."""
    while len(chosen) < count:
        row = int(chance.integers(ad_count))
        if row not in right or ad_count <= len(right):
            chosen.append(row)
    return chosen
