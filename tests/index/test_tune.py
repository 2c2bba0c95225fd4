"""Recall, and the choice of ef_search by it."""

import numpy as np
import pytest

from artifacts.manifest import HnswParams
from index.errors import RecallTargetError
from index.hnsw import HnswGraph
from index.queries import QuerySample
from index.recall import ann_recall
from index.tune import tune
from tests.index.support import unit_vectors

DIM = 48
VECTORS = unit_vectors(4000, DIM)
SAMPLE = QuerySample(unit_vectors(200, DIM, seed=1), "random")
PARAMS = HnswParams(M=6, ef_construction=30)


@pytest.fixture(scope="module")
def graph() -> HnswGraph:
    return HnswGraph.build(VECTORS, np.arange(len(VECTORS)), PARAMS, threads=1)


def brute_force_recall(graph: HnswGraph, k: int) -> float:
    """Recall by sorting all scores, sharing no code with what is tested."""
    truth = np.argsort(-(SAMPLE.embeddings @ VECTORS.T), axis=1)[:, :k]
    found, _ = graph.search(SAMPLE.embeddings, k)
    return np.mean(
        [len(set(left) & set(right)) / k for left, right in zip(truth.tolist(), found.tolist(), strict=True)]
    )


def test_ann_recall_is_the_share_of_exact_rows_that_were_found():
    assert ann_recall(np.array([[1, 2, 3, 4], [5, 6, 7, 8]]), np.array([[4, 3, 2, 1], [5, 6, 0, 9]])) == 0.75


@pytest.mark.parametrize(("k", "target"), [(10, 0.9), (50, 0.9), (50, 0.97)])
def test_the_smallest_ef_search_that_meets_the_target_is_chosen(graph: HnswGraph, k: int, target: float):
    report = tune(graph, VECTORS, SAMPLE, k=k, target=target)
    assert report.ann_recall == pytest.approx(brute_force_recall(graph, k), abs=1e-9)
    assert report.ann_recall >= target
    tried = [point.ef_search for point in report.curve]
    assert tried == sorted(tried)
    assert tried[0] == k < report.ef_search
    graph.set_ef_search(tried[tried.index(report.ef_search) - 1])
    assert brute_force_recall(graph, k) < target
    assert report.curve[-1].ef_search == 2 * report.ef_search
    assert all(point.search_us > 0 for point in report.curve)


def test_a_target_out_of_reach_says_how_far_the_graph_gets(graph: HnswGraph):
    with pytest.raises(
        RecallTargetError, match=r"ann_recall@10 of 1.0 is out of reach: the best is 0\.9\d+ at ef_search"
    ):
        tune(graph, VECTORS, SAMPLE, k=10, target=1.0)


def test_k_is_at_most_the_number_of_ads():
    few = VECTORS[:60]
    graph = HnswGraph.build(few, np.arange(60), HnswParams(), threads=1)
    assert tune(graph, few, SAMPLE, k=100, target=0.97).k == 60
