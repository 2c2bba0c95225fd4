"""The second backend keeps the promises of the first, and says its own where they differ."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from artifacts.manifest import HnswParams
from artifacts.store import ArtifactError
from index.exact import exact_top_k
from index.hnsw import HnswGraph
from index.recall import ann_recall
from tests.index.support import unit_vectors

faiss = pytest.importorskip("faiss", reason="the extra `faiss` is not installed")

from index.faiss_graph import FaissGraph  # noqa: E402 - needs the package

DIM = 64
VECTORS = unit_vectors(3000, DIM)
QUERIES = unit_vectors(50, DIM, seed=1)
ROWS = np.arange(len(VECTORS))
HALF = 5e-4
"""What rounding normalised vectors to float16 may move a cosine by."""


@pytest.fixture(scope="module")
def graph() -> FaissGraph:
    return FaissGraph.build(VECTORS, ROWS, HnswParams(), threads=1)


@pytest.fixture(scope="module")
def saved(graph: FaissGraph, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "graph.faiss"
    graph.save(path)
    return path


def test_it_finds_as_much_as_hnswlib_in_less_memory(graph: FaissGraph, saved: Path):
    other = HnswGraph.build(VECTORS, ROWS, HnswParams(), threads=1)
    exact, _ = exact_top_k(QUERIES, VECTORS, 20)
    recalls = [ann_recall(either.search(QUERIES, 100)[0][:, :20], exact) for either in (graph, other)]
    assert recalls[0] == pytest.approx(recalls[1], abs=0.03)
    assert recalls[0] > 0.85
    assert other.memory_bytes - graph.memory_bytes == pytest.approx(VECTORS.nbytes / 2, rel=0.1)
    assert graph.memory_bytes == pytest.approx(saved.stat().st_size, rel=0.01)


def test_scores_are_cosines_in_falling_order_to_float16(graph: FaissGraph):
    positions, scores = graph.search(QUERIES, 20)
    assert (scores.dtype, positions.dtype) == (np.float32, np.int64)
    assert (np.diff(scores, axis=1) <= 0).all()
    assert scores == pytest.approx(np.einsum("nd,nkd->nk", QUERIES, VECTORS[positions]), abs=HALF)


def test_a_segment_answers_with_its_own_positions():
    some = ROWS[100:200]
    positions, scores = FaissGraph.build(VECTORS, some, HnswParams(), threads=1).search(QUERIES, 100)
    expected_rows, expected = exact_top_k(QUERIES, VECTORS, 100, rows=some)
    assert ann_recall(some[positions][:, :10], expected_rows[:, :10]) > 0.99
    assert scores == pytest.approx(expected, abs=HALF)


def test_searches_of_different_breadths_side_by_side_are_each_as_broad_as_they_ask(graph: FaissGraph):
    breadths = (200, 10)
    alone = {breadth: graph.search(QUERIES, breadth)[0].tolist() for breadth in breadths}
    assert [row[:10] for row in alone[200]] != alone[10]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda breadth: (breadth, graph.search(QUERIES, breadth)[0]), breadths * 50))
    assert all(positions.tolist() == alone[breadth] for breadth, positions in together)


def test_a_graph_that_was_read_again_answers_the_same(graph: FaissGraph, saved: Path):
    loaded = FaissGraph.load(saved, dim=DIM, count=len(ROWS))
    for found, expected in zip(loaded.search(QUERIES, 50), graph.search(QUERIES, 50), strict=True):
        assert found.tolist() == expected.tolist()


def test_one_thread_builds_the_same_graph_again(saved: Path, tmp_path: Path):
    FaissGraph.build(VECTORS, ROWS, HnswParams(), threads=1).save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == saved.read_bytes()


def test_more_ads_than_there_are_gives_all(graph: FaissGraph):
    positions, scores = graph.search(QUERIES[:2], 100_000)
    assert positions.shape == scores.shape == (2, len(VECTORS))
    assert sorted(positions[0].tolist()) == ROWS.tolist()


def test_a_graph_that_cannot_reach_as_many_as_asked_says_so():
    """Many equal vectors with few links leave islands."""
    vectors = np.repeat(unit_vectors(20, DIM), 100, axis=0)
    graph = FaissGraph.build(vectors, np.arange(len(vectors)), HnswParams(M=2, ef_construction=8), threads=1)
    assert graph.search(QUERIES[:3], 1500) is None


@pytest.mark.parametrize(
    ("size", "message"),
    [(0, "faiss cannot load it"), (1000, "faiss cannot load it"), (-1, "faiss cannot load it")],
    ids=["empty", "its start", "all but the last byte"],
)
def test_a_damaged_file_is_refused_and_named(saved: Path, tmp_path: Path, size: int, message: str):
    path = tmp_path / "damaged.faiss"
    path.write_bytes(saved.read_bytes()[:size])
    with pytest.raises(ArtifactError, match=f"damaged.faiss: {message}"):
        FaissGraph.load(path, dim=DIM, count=len(ROWS))


def test_a_graph_of_other_ads_or_of_another_kind_is_refused(saved: Path, tmp_path: Path):
    with pytest.raises(ArtifactError, match="is a graph of 3000 ads of dim 64 where 2999 of dim 64 are expected"):
        FaissGraph.load(saved, dim=DIM, count=2999)
    with pytest.raises(ArtifactError, match="where 3000 of dim 32 are expected"):
        FaissGraph.load(saved, dim=32, count=3000)
    faiss.write_index(faiss.IndexFlatIP(DIM), str(tmp_path / "flat"))
    with pytest.raises(ArtifactError, match="flat: is an IndexFlatIP where an IndexHNSWSQ is expected"):
        FaissGraph.load(tmp_path / "flat", dim=DIM, count=3000)


def test_without_the_package_one_sentence_says_what_to_install():
    code = "import sys; sys.modules['faiss'] = None; import index.faiss_graph"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "BackendError: graphs of the backend faiss need the package faiss-cpu, the extra `faiss`" in result.stderr


def test_a_graph_goes_on_with_other_vectors_and_finds_those_that_are_left(tmp_path: Path):
    old, new = unit_vectors(2500, DIM, seed=5), unit_vectors(700, DIM, seed=6)
    gone = np.sort(np.random.default_rng(0).choice(2500, 600, replace=False))
    graph = FaissGraph.build(old, np.arange(2500), HnswParams(), threads=1).continued(gone, new, threads=1)
    assert graph.count == 2600
    assert graph.dead.tolist() == gone.tolist()
    left = np.concatenate([np.delete(old, gone, axis=0), new])
    graph.save(tmp_path / "graph.faiss")
    again = FaissGraph.load(tmp_path / "graph.faiss", dim=DIM, count=2600, dead=graph.dead)
    exact, _ = exact_top_k(QUERIES, left, 20)
    for either in (graph, again):
        found = either.search(QUERIES, 200)
        assert found is not None
        assert ann_recall(found[0][:, :20], exact) > 0.95
        assert found[1] == pytest.approx(np.einsum("nd,nkd->nk", QUERIES, left[found[0]]), abs=HALF)
    assert again.search(QUERIES, 5000) is None or again.search(QUERIES, 5000)[0].shape == (len(QUERIES), 2600)
    twice = again.continued(np.arange(100), old[:50], threads=1)
    assert (twice.count, len(twice.dead)) == (2550, 700)
    left = np.concatenate([left[100:], old[:50]])
    found = twice.search(left[-50:], 100)
    assert found is not None
    assert (found[0][:, 0] == np.arange(2500, 2550)).mean() > 0.95
