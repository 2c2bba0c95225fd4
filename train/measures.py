"""What is measured of rankings: quality by judgment, what a student keeps of its teacher's, and how alike they are."""

import math
from collections.abc import Mapping, Sequence

import ir_measures
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from train.data import RELEVANT_GRADE

RESAMPLES = 2000
CONFIDENCE = 0.95
_SEED = 1

PerQuery = dict[str, dict[int, float]]
"""Values by name of the measure and by position of the query; only queries on which the measure is defined."""


class Estimate(BaseModel):
    """A value with its interval, which has no end where a teacher may find nothing."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    value: float
    low: float
    high: float


def measure_rankings(rows: NDArray[np.int64], grades: Sequence[Mapping[int, int]], k: int) -> PerQuery:
    """P@10, P@k, R@k and nDCG@10 of each query.

    Precision and recall take the queries that have an ad of grade 2, nDCG those that have one above 0; an ad that was
    not judged counts as wrong.

    Args:
        rows: of the ads found, best first, shape (n, at least k).
        grades: of the judged ads by row, for each of the n queries.
        k: cutoff of recall, and of the deeper precision, which the paper takes.
    """
    precision, recall = ir_measures.P(rel=RELEVANT_GRADE), ir_measures.R(rel=RELEVANT_GRADE) @ k
    relevant = dict.fromkeys((precision @ 10, precision @ k, recall), RELEVANT_GRADE)
    run = {
        str(query): {str(row): -float(rank) for rank, row in enumerate(found)}
        for query, found in enumerate(rows[:, : max(k, 10)].tolist())
    }
    values: PerQuery = {}
    for measure, least in (relevant | {ir_measures.nDCG @ 10: 1}).items():
        qrels = {
            str(query): {str(row): grade for row, grade in judged.items()}
            for query, judged in enumerate(grades)
            if max(judged.values(), default=0) >= least
        }
        found = ir_measures.iter_calc([measure], qrels, run)
        values[str(measure)] = {int(one.query_id): one.value for one in found}
    return values


def judged_share(rows: NDArray[np.int64], grades: Sequence[Mapping[int, int]]) -> float:
    """Mean share of the first ten of `rows` (n, k) that were judged for their query."""
    best = rows[:, :10]
    return sum(row in judged for found, judged in zip(best.tolist(), grades, strict=True) for row in found) / best.size


def mean(values: Mapping[int, float]) -> float:
    """Over the queries; NaN without one."""
    return float(np.mean(list(values.values()))) if values else float("nan")


def retention(student: Mapping[int, float], teacher: Mapping[int, float]) -> Estimate:
    """Mean of a student over the mean of its teacher, with a bootstrap interval over the queries.

    A sample takes the same queries of both, so what makes a query hard for both does not widen the interval. Nothing is
    a share of a teacher that found nothing: all three are NaN then.
    """
    if not any(teacher.values()):
        return Estimate(value=math.nan, low=math.nan, high=math.nan)
    queries = sorted(teacher)
    pairs = np.array([(student[query], teacher[query]) for query in queries]).reshape(len(queries), 2)
    chance = np.random.default_rng(_SEED)
    counts = chance.multinomial(len(queries), np.full(len(queries), 1 / len(queries)), size=RESAMPLES)
    with np.errstate(invalid="ignore", divide="ignore"):
        sums = counts @ pairs
        ratios = sums[:, 0] / sums[:, 1]
        low, high = np.nanquantile(ratios, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        value = pairs[:, 0].sum() / pairs[:, 1].sum()
    return Estimate(value=float(value), low=float(low), high=float(high))


def difference(one: Mapping[int, float], other: Mapping[int, float]) -> Estimate:
    """Mean of one ranking less that of another, with a bootstrap interval over the queries that both have.

    All three are NaN where there is no such query.
    """
    pairs = np.array([one[query] - other[query] for query in sorted(one.keys() & other.keys())])
    if not len(pairs):
        return Estimate(value=math.nan, low=math.nan, high=math.nan)
    chance = np.random.default_rng(_SEED)
    means = chance.multinomial(len(pairs), np.full(len(pairs), 1 / len(pairs)), size=RESAMPLES) @ pairs / len(pairs)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(value=float(pairs.mean()), low=float(low), high=float(high))


def overlap(expected: NDArray[np.int64], found: NDArray[np.int64]) -> float:
    """Mean share of each row of `expected` (n, k) that the same row of `found` (n, k) has too."""
    shared = sum(int(np.isin(a, b).sum()) for a, b in zip(expected, found, strict=True))
    return shared / expected.size
