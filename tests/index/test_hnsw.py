"""Graphs and exact search: the pitfalls of hnswlib that this room must hide."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hnswlib
import numpy as np
import pytest
from numpy.typing import NDArray

from artifacts.manifest import HnswParams
from artifacts.store import ArtifactError
from index.exact import CHUNK_ROWS, exact_top_k
from index.hnsw import HnswGraph
from tests.index.support import DIM, unit_vectors

VECTORS = unit_vectors(3000)
QUERIES = unit_vectors(50, seed=1)
ROWS = np.arange(len(VECTORS))


@pytest.fixture(scope="module")
def graph() -> HnswGraph:
    return HnswGraph.build(VECTORS, ROWS, HnswParams(), threads=1)


@pytest.fixture(scope="module")
def saved(graph: HnswGraph, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "graph.hnsw"
    graph.save(path)
    return path


def search(graph: HnswGraph, breadth: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    found = graph.search(QUERIES, breadth)
    assert found is not None
    return found


@pytest.mark.parametrize("k", [1, 7, 2999, 5000])
def test_exact_search_agrees_with_sorting_all_scores(k: int):
    rows, scores = exact_top_k(QUERIES, VECTORS, k)
    everything = QUERIES.astype(np.float64) @ VECTORS.T.astype(np.float64)
    expected = -np.sort(-everything, axis=1)[:, :k]
    assert scores == pytest.approx(expected, abs=1e-6)
    assert np.take_along_axis(everything, rows, axis=1) == pytest.approx(expected, abs=1e-6)
    assert all(len(set(found)) == min(k, len(VECTORS)) for found in rows.tolist())


def test_exact_search_spans_its_chunks_and_orders_ties_by_row():
    vectors = np.tile(unit_vectors(1), (CHUNK_ROWS * 2 + 5, 1))
    vectors[[3, CHUNK_ROWS + 1, CHUNK_ROWS * 2 + 4]] *= -1
    rows, _ = exact_top_k(-vectors[:1], vectors, 3)
    assert rows.tolist() == [[3, CHUNK_ROWS + 1, CHUNK_ROWS * 2 + 4]]


def test_a_graph_of_some_rows_answers_with_positions_among_them():
    some = ROWS[100:200]
    rows, scores = exact_top_k(QUERIES, VECTORS, 10, rows=some)
    found = HnswGraph.build(VECTORS, some, HnswParams(), threads=1).search(QUERIES, 100)
    assert found is not None
    assert some[found[0][:, :10]].tolist() == rows.tolist()
    assert found[1][:, :10] == pytest.approx(scores, abs=1e-6)


def test_scores_are_cosines_in_falling_order(graph: HnswGraph):
    rows, scores = search(graph, 100)
    assert scores.dtype == np.float32
    assert rows.dtype == np.int64
    assert (np.diff(scores, axis=1) <= 0).all()
    assert scores == pytest.approx(np.einsum("nd,nkd->nk", QUERIES, VECTORS[rows]), abs=1e-5)


def test_the_first_of_a_broad_search_are_hnswlibs_own_answer_with_that_ef(saved: Path):
    """An `ef` below k would make hnswlib give bad answers to large requests, if it did not take the larger of both."""
    raw = hnswlib.Index(space="ip", dim=DIM)
    raw.load_index(str(saved))
    for breadth in (10, 37, 200):
        raw.set_ef(breadth)
        labels, distances = raw.knn_query(QUERIES, k=10, num_threads=1)
        rows, scores = search(HnswGraph.load(saved, dim=DIM, count=len(VECTORS)), breadth)
        assert rows[:, :10].tolist() == labels.tolist()
        assert scores[:, :10].tolist() == (1.0 - distances).tolist()


def test_searches_of_different_breadths_side_by_side_are_each_as_broad_as_they_ask(graph: HnswGraph):
    breadths = (200, 10)
    alone = {breadth: search(graph, breadth)[0].tolist() for breadth in breadths}
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda breadth: (breadth, search(graph, breadth)[0]), breadths * 100))
    assert all(rows.tolist() == alone[breadth] for breadth, rows in together)


def test_a_loaded_graph_answers_as_the_one_that_was_saved(graph: HnswGraph, saved: Path):
    loaded = HnswGraph.load(saved, dim=DIM, count=len(VECTORS))
    assert search(loaded, 300)[0].tolist() == search(graph, 300)[0].tolist()


def test_one_thread_builds_the_same_graph_again(graph: HnswGraph, saved: Path, tmp_path: Path):
    HnswGraph.build(VECTORS, ROWS, HnswParams(), threads=1).save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == saved.read_bytes()


def test_more_ads_than_there_are_gives_all(graph: HnswGraph):
    rows, scores = search(graph, 100_000)
    assert rows.shape == scores.shape == (len(QUERIES), len(VECTORS))
    assert sorted(rows[0].tolist()) == ROWS.tolist()


def test_a_graph_that_cannot_reach_as_many_says_so(tmp_path: Path):
    """Many equal vectors with few links leave islands, and hnswlib then raises."""
    vectors = np.repeat(unit_vectors(20), 100, axis=0)
    graph = HnswGraph.build(vectors, np.arange(len(vectors)), HnswParams(M=2, ef_construction=8), threads=1)
    graph.save(tmp_path / "graph")
    raw = hnswlib.Index(space="ip", dim=DIM)
    raw.load_index(str(tmp_path / "graph"))
    with pytest.raises(RuntimeError, match="contiguous 2D array"):
        raw.knn_query(QUERIES[:3], k=1500)
    assert graph.search(QUERIES[:3], 1500) is None


@pytest.mark.parametrize(
    ("dim", "count", "message"),
    [
        (DIM * 2, 3000, "is a graph of 3000 ads of dim 32 where 3000 of dim 64 are expected"),
        (DIM, 2999, "is a graph of 3000 ads of dim 32 where 2999 of dim 32 are expected"),
    ],
    ids=["another dimension", "another number of ads"],
)
def test_a_graph_of_other_vectors_is_refused(saved: Path, dim: int, count: int, message: str):
    with pytest.raises(ArtifactError, match=message):
        HnswGraph.load(saved, dim=dim, count=count)


@pytest.mark.parametrize("size", [0, 20, 5000], ids=["empty", "part of the header", "half"])
def test_a_truncated_graph_is_refused(saved: Path, tmp_path: Path, size: int):
    (tmp_path / "graph.hnsw").write_bytes(saved.read_bytes()[:size])
    with pytest.raises(ArtifactError, match=r"graph.hnsw: (has \d+ bytes|hnswlib cannot load it)"):
        HnswGraph.load(tmp_path / "graph.hnsw", dim=DIM, count=len(VECTORS))


def test_other_threads_run_while_a_graph_is_loaded(tmp_path: Path):
    """A load that held the interpreter's lock would stop a service that answers beside it, and here wait for ever.

    Opening a pipe blocks until its other end is opened too, which the main thread does while the load is inside.
    """
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    code = """
import contextlib, sys, threading, hnswlib
graph = hnswlib.Index(space="ip", dim=4)
def load():
    with contextlib.suppress(RuntimeError):
        graph.load_index(sys.argv[1])
thread = threading.Thread(target=load)
thread.start()
open(sys.argv[1], "wb").close()
thread.join()
"""
    subprocess.run([sys.executable, "-c", code, pipe], timeout=60, check=True)


def recall_of(graph: HnswGraph, vectors: np.ndarray, breadth: int) -> float:
    found = graph.search(QUERIES, breadth)
    assert found is not None
    exact, _ = exact_top_k(QUERIES, vectors, 10)
    return float(
        np.mean([len(set(a[:10]) & set(b)) / 10 for a, b in zip(found[0].tolist(), exact.tolist(), strict=True)])
    )


def test_recall_stays_while_half_of_the_ads_is_replaced_again_and_again(tmp_path: Path):
    """`replace_deleted`, or labels used again, lose recall with every round."""
    vectors = VECTORS
    graph = HnswGraph.build(vectors, ROWS, HnswParams(), threads=1)
    for round_number in range(3):
        gone = np.sort(np.random.default_rng(round_number).choice(len(vectors), len(vectors) // 2, replace=False))
        added = unit_vectors(len(gone), seed=10 + round_number)
        graph = graph.continued(gone, added, threads=1)
        vectors = np.concatenate([np.delete(vectors, gone, axis=0), added])
        graph.save(tmp_path / "graph")
        graph = HnswGraph.load(tmp_path / "graph", dim=DIM, count=len(vectors), dead=graph.dead)
    assert (graph.count, len(graph.dead)) == (3000, 4500)
    fresh = HnswGraph.build(vectors, ROWS, HnswParams(), threads=1)
    assert recall_of(graph, vectors, 60) >= recall_of(fresh, vectors, 60) - 0.01


def test_positions_of_a_continued_graph_are_those_of_the_vectors_that_stay(saved: Path):
    graph = HnswGraph.load(saved, dim=DIM, count=3000)
    gone = np.array([0, 1, 5, 2999])
    added = unit_vectors(3, seed=9)
    graph = graph.continued(gone, added, threads=1)
    vectors = np.concatenate([np.delete(VECTORS, gone, axis=0), added])
    everything = graph.search(vectors[:20], len(vectors))
    assert everything is not None
    positions, scores = everything
    assert sorted(positions[0].tolist()) == list(range(2999))
    assert scores == pytest.approx(np.einsum("nd,nkd->nk", vectors[:20], vectors[positions]), abs=1e-5)
    assert graph.search(added, 1)[0].tolist() == [[2996], [2997], [2998]]
    again = graph.continued(np.array([2996]), np.empty((0, DIM), np.float32), threads=1)
    assert again.dead.tolist() == [0, 1, 5, 2999, 3000]
    assert again.search(added[1:], 1)[0].tolist() == [[2996], [2997]]
