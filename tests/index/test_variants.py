"""Indexes of half the memory: graphs of faiss, and embeddings cut to a length that their space allows."""

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from artifacts.space import EmbeddingSpace
from artifacts.store import ArtifactError
from index.build import BuildInputs, BuildOptions, BuildResult, build_index
from index.errors import BackendError, BuildError
from index.filters import Wanted
from index.load import load_index, needed_bytes
from index.measure import verify_index
from tests.index.support import DIM, SPACE, WordEmbedder, inputs, sample_feed, unit_vectors, write_feed

AD_COUNT = 2200
NESTED = EmbeddingSpace(**(SPACE.model_dump() | {"matryoshka_dims": (8, 16)}))


@pytest.fixture(scope="module")
def feed(tmp_path_factory) -> Path:
    return sample_feed(tmp_path_factory.mktemp("feed") / "shop.jsonl", AD_COUNT)


def nested_inputs(feed: Path) -> BuildInputs:
    plain = inputs(feed, WordEmbedder())
    assert plain.encoder is not None
    manifest = plain.encoder.manifest.model_copy(update={"space": NESTED})
    return replace(plain, space=NESTED, encoder=replace(plain.encoder, manifest=manifest))


def normalized(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_an_index_of_cut_embeddings_is_searched_with_whole_ones(feed: Path, tmp_path: Path):
    whole = build_index(inputs(feed, WordEmbedder()), tmp_path / "whole", BuildOptions(k=10)).manifest
    cut = build_index(nested_inputs(feed), tmp_path / "cut", BuildOptions(k=10, dim=16)).manifest
    assert (whole.dim, cut.dim, cut.space.dim) == (DIM, 16, DIM)
    assert cut.recall.ann_recall >= 0.97
    expected = normalized(np.load(tmp_path / "whole" / "vectors.npy")[:, :16])
    assert np.load(tmp_path / "cut" / "vectors.npy") == pytest.approx(expected, abs=1e-6)
    assert needed_bytes(cut) < needed_bytes(whole)
    ad_index, queries = load_index(tmp_path / "cut"), unit_vectors(5, seed=4)
    truth = normalized(queries[:, :16]) @ expected.T
    for hits, scores in zip(ad_index.exact_search(queries, [Wanted(10)] * 5), truth, strict=True):
        assert hits.scores == pytest.approx(-np.sort(-scores)[:10], abs=1e-5)
    for hits, scores in zip(ad_index.search(queries, [Wanted(10)] * 5), truth, strict=True):
        assert hits.scores == pytest.approx(scores[hits.rows], abs=1e-5)


def test_embeddings_that_come_with_the_feed_are_cut_too(tmp_path: Path):
    vectors = unit_vectors(30)
    lines = [{"ad_id": f"ad-{i}", "title": "drill", "embedding": v.tolist()} for i, v in enumerate(vectors)]
    feed = write_feed(tmp_path / "shop.jsonl", lines)
    build_index(BuildInputs(feed, NESTED, None, "feed"), tmp_path / "out", BuildOptions(dim=8))
    [hits] = load_index(tmp_path / "out").search(vectors[3:4], [Wanted(30)])
    assert hits.ad_ids[0] == "ad-3"
    assert hits.scores == pytest.approx(
        -np.sort(-normalized(vectors[:, :8]) @ normalized(vectors[3:4, :8])[0]), abs=1e-5
    )


@pytest.mark.parametrize(
    ("space", "allowed"), [(SPACE, "none"), (NESTED, "8, 16")], ids=["no other length", "other lengths"]
)
def test_only_a_length_that_the_space_names_is_cut_to(feed: Path, tmp_path: Path, space: EmbeddingSpace, allowed: str):
    plain = replace(inputs(feed, WordEmbedder()), space=space)
    with pytest.raises(BuildError, match=f"embeddings of dim 32 cannot be cut to 12; .* trained for: {allowed}$"):
        build_index(plain, tmp_path / "out", BuildOptions(dim=12))


def test_an_index_with_graphs_of_faiss_answers_as_one_with_graphs_of_hnswlib(feed: Path, tmp_path: Path):
    pytest.importorskip("faiss", reason="the extra `faiss` is not installed")
    queries = unit_vectors(20, seed=9)
    found, sizes = {}, {}
    for backend in ("hnswlib", "faiss"):
        options = BuildOptions(k=20, target_recall=0.99, backend=backend)
        manifest = build_index(inputs(feed, WordEmbedder()), tmp_path / backend, options).manifest
        assert manifest.backend == backend
        assert manifest.segments[0].kind == "hnsw"
        assert verify_index(tmp_path / backend)[1][0].point.ann_recall >= 0.99
        ad_index = load_index(tmp_path / backend)
        found[backend] = [set(hits.ad_ids) for hits in ad_index.search(queries, [Wanted(20)] * 20)]
        sizes[backend] = ad_index.stats().memory_bytes
    shared = [len(left & right) for left, right in zip(found["hnswlib"], found["faiss"], strict=True)]
    assert np.mean(shared) > 0.97 * 20
    assert sizes["hnswlib"] - sizes["faiss"] == pytest.approx(AD_COUNT * DIM * 2, rel=0.2)
    graph = tmp_path / "faiss" / "segments" / "any-any" / "graph.faiss"
    graph.write_bytes(graph.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=r"graph\.faiss: has \d+ bytes"):
        load_index(tmp_path / "faiss")
    with pytest.raises(ArtifactError, match=r"graph\.faiss: faiss cannot load it"):
        load_index(tmp_path / "faiss", verify=False)


def test_a_build_that_needs_a_missing_package_says_so_before_it_begins(feed: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    monkeypatch.delitem(__import__("sys").modules, "index.faiss_graph", raising=False)
    embedder = WordEmbedder()
    with pytest.raises(BackendError, match="need the package faiss-cpu"):
        build_index(inputs(feed, embedder), tmp_path / "out", BuildOptions(backend="faiss"))
    assert embedder.encoded == 0


def build_with_graph(feed: Path, out: Path) -> BuildResult:
    return build_index(inputs(feed, WordEmbedder()), out, BuildOptions(k=10, target_recall=0.9))


def test_a_build_report_has_the_summary_and_a_plot_of_recall_against_time(feed: Path, tmp_path: Path):
    pytest.importorskip("matplotlib", reason="the extra `offline` is not installed")
    from index.build_report import write_report

    result = build_with_graph(feed, tmp_path / "out")
    for name in ("first", "second"):
        write_report(result, tmp_path / name)
    text = (tmp_path / "first" / "report.md").read_text()
    for said in (result.manifest.index_version, "(recall.svg)", "ann_recall@10", "seconds"):
        assert said in text
    plot = tmp_path / "first" / "recall.svg"
    assert ET.fromstring(plot.read_text()).tag.endswith("svg")
    assert plot.read_bytes() == (tmp_path / "second" / "recall.svg").read_bytes()


def test_a_report_of_an_index_that_is_scanned_has_no_plot(tmp_path: Path):
    pytest.importorskip("matplotlib", reason="the extra `offline` is not installed")
    from index.build_report import write_report

    feed = sample_feed(tmp_path / "few.jsonl", 30)
    write_report(build_index(inputs(feed, WordEmbedder()), tmp_path / "few", BuildOptions()), tmp_path / "report")
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["report.md"]
