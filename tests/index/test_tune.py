"""Recall, and the choice of ef_search by it."""

import numpy as np
import pytest

from artifacts.manifest import HnswParams
from index.errors import RecallTargetError
from index.hnsw import HnswGraph
from index.recall import ann_recall
from index.tune import Tuned, tune
from tests.index.support import unit_vectors

DIM = 48
VECTORS = unit_vectors(4000, DIM)
ROWS = np.arange(len(VECTORS))
QUERIES = unit_vectors(200, DIM, seed=1)
PARAMS = HnswParams(M=6, ef_construction=30)


@pytest.fixture(scope="module")
def graph() -> HnswGraph:
    return HnswGraph.build(VECTORS, ROWS, PARAMS, threads=1)


def tune_for(graph: HnswGraph, k: int, target: float, rows: np.ndarray = ROWS) -> Tuned:
    return tune(graph, VECTORS, rows, QUERIES, k=k, target=target, name="us-en")


def brute_force_recall(graph: HnswGraph, k: int, ef_search: int) -> float:
    """Recall by sorting all scores, sharing no code with what is tested."""
    truth = np.argsort(-(QUERIES @ VECTORS.T), axis=1)[:, :k]
    found = graph.search(QUERIES, ef_search)[0][:, :k]
    return np.mean(
        [len(set(left) & set(right)) / k for left, right in zip(truth.tolist(), found.tolist(), strict=True)]
    )


def test_ann_recall_is_the_share_of_exact_rows_that_were_found():
    assert ann_recall(np.array([[1, 2, 3, 4], [5, 6, 7, 8]]), np.array([[4, 3, 2, 1], [5, 6, 0, 9]])) == 0.75


def test_where_there_is_nothing_to_find_nothing_is_missed():
    nothing, three, two = np.array([], dtype=np.int64), np.array([1, 2, 3]), np.array([1, 9])
    assert ann_recall([nothing, two], [nothing, three]) == pytest.approx((1 + 1 / 3) / 2)


@pytest.mark.parametrize(("k", "target"), [(10, 0.9), (50, 0.9), (50, 0.97)])
def test_the_smallest_ef_search_that_meets_the_target_is_chosen(graph: HnswGraph, k: int, target: float):
    tuned = tune_for(graph, k, target)
    assert tuned.ann_recall == pytest.approx(brute_force_recall(graph, k, tuned.ef_search), abs=1e-9)
    assert tuned.ann_recall >= target
    tried = [point.ef_search for point in tuned.curve]
    assert tried == sorted(tried)
    assert tried[0] == k < tuned.ef_search
    assert brute_force_recall(graph, k, tried[tried.index(tuned.ef_search) - 1]) < target
    assert tuned.curve[-1].ef_search == 2 * tuned.ef_search
    assert all(point.search_us > 0 for point in tuned.curve)


def test_a_target_out_of_reach_says_which_segment_and_how_far_it_gets(graph: HnswGraph):
    with pytest.raises(
        RecallTargetError,
        match=r"segment us-en: ann_recall@10 of 1.0 is out of reach: the best is 0\.9\d+ at ef_search",
    ):
        tune_for(graph, 10, 1.0)


def test_a_segment_is_measured_on_its_own_ads_and_k_is_at_most_their_number():
    some = ROWS[1000:1060]
    tuned = tune_for(HnswGraph.build(VECTORS, some, HnswParams(), threads=1), 100, 0.97, some)
    assert tuned.ef_search == 60
    assert tuned.ann_recall == 1
