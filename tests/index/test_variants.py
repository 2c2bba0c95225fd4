"""Indexes of half the memory: graphs of faiss, and embeddings cut to a length that their space allows."""

import contextlib
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from artifacts.manifest import Backend
from artifacts.space import EmbeddingSpace
from artifacts.store import ArtifactError
from index.build import BuildInputs, BuildOptions, BuildResult, build_index
from index.changes import Delete, Upsert
from index.cli import app
from index.errors import BackendError, BuildError
from index.feed import FeedAd
from index.filters import Wanted
from index.live import LiveIndex
from index.load import load_index, needed_bytes
from index.measure import verify_index
from index.merge import merge
from index.record_seed import open_record
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


@pytest.mark.parametrize(("backend", "dim"), [("hnswlib", DIM), ("faiss", 16)])
def test_an_index_of_any_kind_goes_on_living_with_a_record(feed: Path, tmp_path: Path, backend: Backend, dim: int):
    if backend == "faiss":
        pytest.importorskip("faiss", reason="the extra `faiss` is not installed")
    seed, path = tmp_path / "shop", tmp_path / "shop.db"
    build_index(nested_inputs(feed), seed, BuildOptions(k=10, target_recall=0.99, backend=backend, dim=dim))
    ad_ids, vectors = load_index(seed).ads.ad_ids, list(np.load(seed / "vectors.npy"))
    fresh = unit_vectors(40, seed=8)
    with contextlib.closing(open_record(path, seed)) as record:
        live = LiveIndex.open(path, seed)
        changes = [Delete(ad_id) for ad_id in ad_ids[:150]]
        changes += [upsert_of(f"new-{number}", vector) for number, vector in enumerate(fresh)]
        with record.transaction() as transaction:
            live.apply([state for change in changes if (state := transaction.make(change))])
    left = dict(zip([*ad_ids[150:], *(f"new-{number}" for number in range(40))], [*vectors[150:], *fresh], strict=True))
    check_finds(live, left, dim)
    merge(path, seed)
    shown = CliRunner().invoke(app, ["inspect", str(seed), "--record", str(path)], env={"COLUMNS": "200"})
    assert "2,090 ads and 150 tombstones" in shown.stdout
    assert "up to number 190, of 190; 0 came since" in shown.stdout
    check_finds(LiveIndex.open(path, seed), left, dim)


def upsert_of(ad_id: str, vector: np.ndarray) -> Upsert:
    return Upsert(FeedAd(ad_id=ad_id, title="drill"), vector, None)


def check_finds(live: LiveIndex, left: dict[str, np.ndarray], dim: int) -> None:
    """Of all ads that there are the true nearest, most of them; and of no other ads."""
    queries = unit_vectors(20, seed=12)
    scores = normalized(queries[:, :dim]) @ normalized(np.stack([vector[:dim] for vector in left.values()])).T
    ad_ids = np.array(list(left))
    nearest = ad_ids[np.argsort(-scores, axis=1)[:, :10]]
    found = [hits.ad_ids for hits in live.search(queries, [Wanted(10)] * 20)]
    assert np.mean([len(set(some) & set(best)) for some, best in zip(found, nearest, strict=True)]) > 9.5
    assert set().union(*found) <= set(left)
