"""Graphs and exact search: the pitfalls of hnswlib that this room must hide."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hnswlib
import numpy as np
import pytest

from artifacts.manifest import HnswParams
from artifacts.store import ArtifactError
from index.exact import CHUNK_ROWS, ExactScan, exact_top_k
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


def test_a_segment_answers_with_rows_of_the_whole_index():
    some = ROWS[100:200][::-1].copy()
    scan = ExactScan(VECTORS[some], some)
    part = HnswGraph.build(VECTORS, some, HnswParams(), threads=1)
    part.set_ef_search(100)
    expected = exact_top_k(QUERIES, VECTORS, 10, rows=some)
    for searcher in (scan, part):
        rows, scores = searcher.search(QUERIES, 10)
        assert rows.tolist() == expected[0].tolist()
        assert scores == pytest.approx(expected[1], abs=1e-6)


def test_scores_are_cosines_in_falling_order(graph: HnswGraph):
    graph.set_ef_search(100)
    rows, scores = graph.search(QUERIES, 20)
    assert scores.dtype == np.float32
    assert rows.dtype == np.int64
    assert (np.diff(scores, axis=1) <= 0).all()
    assert scores == pytest.approx(np.einsum("nd,nkd->nk", QUERIES, VECTORS[rows]), abs=1e-5)


def test_hnswlib_searches_as_broadly_as_k_asks(graph: HnswGraph):
    """An `ef` below k would make hnswlib give bad answers to large requests, if it did not take the larger of both."""
    graph.set_ef_search(10)
    narrow, _ = graph.search(QUERIES, 200)
    graph.set_ef_search(200)
    broad, _ = graph.search(QUERIES, 200)
    assert narrow.tolist() == broad.tolist()


def test_asking_for_ef_results_and_taking_the_first_k_is_hnswlibs_own_search_with_that_ef(saved: Path):
    raw = hnswlib.Index(space="ip", dim=DIM)
    raw.load_index(str(saved))
    for ef_search in (10, 37, 200):
        raw.set_ef(ef_search)
        labels, distances = raw.knn_query(QUERIES, k=10, num_threads=1)
        rows, scores = HnswGraph.load(saved, VECTORS, ROWS, ef_search=ef_search).search(QUERIES, 10)
        assert rows.tolist() == labels.tolist()
        assert scores.tolist() == (1.0 - distances).tolist()


def test_searches_of_different_breadths_side_by_side_are_each_as_broad_as_they_ask(graph: HnswGraph):
    graph.set_ef_search(200)
    efforts = (1.0, 0.05)
    alone = {effort: graph.search(QUERIES, 10, effort=effort)[0].tolist() for effort in efforts}
    assert alone[1.0] != alone[0.05]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda effort: (effort, graph.search(QUERIES, 10, effort=effort)[0]), efforts * 100))
    assert all(rows.tolist() == alone[effort] for effort, rows in together)


def test_ef_search_survives_save_and_load(graph: HnswGraph, saved: Path):
    """hnswlib itself falls back to 10, at which the answers differ."""
    graph.set_ef_search(300)
    expected, _ = graph.search(QUERIES, 5)
    loaded, _ = HnswGraph.load(saved, VECTORS, ROWS, ef_search=300).search(QUERIES, 5)
    forgotten, _ = HnswGraph.load(saved, VECTORS, ROWS, ef_search=10).search(QUERIES, 5)
    assert loaded.tolist() == expected.tolist()
    assert forgotten.tolist() != expected.tolist()


def test_one_thread_builds_the_same_graph_again(graph: HnswGraph, saved: Path, tmp_path: Path):
    HnswGraph.build(VECTORS, ROWS, HnswParams(), threads=1).save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == saved.read_bytes()


def test_more_ads_than_there_are_gives_all(graph: HnswGraph):
    graph.set_ef_search(100)
    rows, scores = graph.search(QUERIES[:2], 100_000)
    assert rows.shape == scores.shape == (2, len(VECTORS))
    assert sorted(rows[0].tolist()) == ROWS.tolist()


def test_a_graph_that_cannot_reach_k_ads_is_searched_exactly(tmp_path: Path):
    """Many equal vectors with few links leave islands, and hnswlib then raises."""
    vectors = np.repeat(unit_vectors(20), 100, axis=0)
    rows = np.arange(len(vectors))
    graph = HnswGraph.build(vectors, rows, HnswParams(M=2, ef_construction=8), threads=1)
    graph.save(tmp_path / "graph")
    raw = hnswlib.Index(space="ip", dim=DIM)
    raw.load_index(str(tmp_path / "graph"))
    with pytest.raises(RuntimeError, match="contiguous 2D array"):
        raw.knn_query(QUERIES[:3], k=1500)
    found, scores = graph.search(QUERIES[:3], 1500)
    assert scores == pytest.approx(exact_top_k(QUERIES[:3], vectors, 1500)[1], abs=1e-6)
    assert all(len(set(answer)) == 1500 for answer in found.tolist())


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
        HnswGraph.load(saved, unit_vectors(count, dim), np.arange(count), ef_search=10)


@pytest.mark.parametrize("size", [0, 20, 5000], ids=["empty", "part of the header", "half"])
def test_a_truncated_graph_is_refused(saved: Path, tmp_path: Path, size: int):
    (tmp_path / "graph.hnsw").write_bytes(saved.read_bytes()[:size])
    with pytest.raises(ArtifactError, match=r"graph.hnsw: (has \d+ bytes|hnswlib cannot load it)"):
        HnswGraph.load(tmp_path / "graph.hnsw", VECTORS, ROWS, ef_search=10)


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
