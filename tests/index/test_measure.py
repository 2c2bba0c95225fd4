"""An index that is there already: measured again, and tuned anew."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from artifacts.manifest import IndexManifest
from artifacts.store import ArtifactError, load_manifest
from index.build import BuildOptions, build_index
from index.cli import app
from index.errors import QuerySampleError, RecallTargetError
from index.filters import Wanted
from index.load import load_index
from index.measure import check_recall, retune, verify_index
from index.recall import ann_recall
from tests.index.support import WordEmbedder, inputs, sample_feed

AD_COUNT = 2300


@pytest.fixture
def built(tmp_path: Path) -> Path:
    feed = sample_feed(tmp_path / "shop.jsonl", AD_COUNT)
    build_index(inputs(feed, WordEmbedder()), tmp_path / "shop", BuildOptions(k=20, target_recall=0.6))
    return tmp_path / "shop"


def run(*arguments: str | Path):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def recall_of(directory: Path, queries: np.ndarray, k: int) -> float:
    """By comparing with everything, and with what a search of the index as it is set finds."""
    ad_index = load_index(directory)
    wanted = [Wanted(k)] * len(queries)
    found = [hits.rows for hits in ad_index.search(queries, wanted)]
    return ann_recall(found, list(np.argsort(-(queries @ np.asarray(ad_index.vectors).T), axis=1)[:, :k]))


def test_the_queries_of_an_index_are_kept_and_measured_again(built: Path):
    manifest, [measured] = verify_index(built)
    assert measured.point.ann_recall == pytest.approx(measured.entry.ann_recall, abs=1e-9)
    assert measured.point.ef_search == measured.entry.ef_search
    queries = np.load(built / "queries.npy")
    assert len(queries) == manifest.recall.query_count
    assert measured.point.ann_recall == pytest.approx(recall_of(built, queries, 20), abs=1e-3)  # like ads change places


def test_tuning_reaches_another_target_with_the_same_graph_file(built: Path):
    before = load_manifest(built, IndexManifest)
    graph = built / "segments" / "any-any" / "graph.hnsw"
    inode = graph.stat().st_ino
    retuned = retune(built, queries=None, embedder=None, k=None, target=0.99)
    assert retuned == load_index(built).manifest
    [segment] = retuned.segments
    assert segment.ef_search > before.segments[0].ef_search
    assert segment.ann_recall >= 0.99 == retuned.recall.target
    assert retuned.recall.ann_recall == pytest.approx(segment.ann_recall)
    assert recall_of(built, np.load(built / "queries.npy"), 20) == pytest.approx(segment.ann_recall, abs=1e-3)
    assert graph.stat().st_ino == inode
    assert (retuned.index_version, retuned.files) == (before.index_version, before.files)
    assert [path.name for path in built.parent.iterdir() if path.name.startswith(".")] == []


def test_a_built_index_stays_current_when_it_was_tuned(built: Path):
    retune(built, queries=None, embedder=None, k=None, target=0.99)
    feed = built.parent / "shop.jsonl"
    again = build_index(inputs(feed, WordEmbedder()), built, BuildOptions(k=20, target_recall=0.6))
    assert again.seconds == {}
    assert again.manifest.recall.target == 0.99


def test_tuning_on_other_queries_keeps_those(built: Path):
    (built.parent / "queries.txt").write_text("\n".join(f"drill {number}" for number in range(40)))
    retuned = retune(built, queries=built.parent / "queries.txt", embedder=WordEmbedder(), k=5, target=0.9)
    assert (retuned.recall.query_source, retuned.recall.query_count, retuned.recall.k) == ("queries.txt", 40, 5)
    assert np.load(built / "queries.npy").shape == (40, retuned.dim)
    verify_index(built)


def test_a_target_out_of_reach_leaves_the_index_as_it_was(built: Path):
    before = (built / "manifest.json").read_bytes()
    with pytest.raises(RecallTargetError, match=r"segment any-any: ann_recall@1 of 1\.0 is out of reach"):
        retune(built, queries=None, embedder=None, k=1, target=1.0)
    assert (built / "manifest.json").read_bytes() == before


def test_an_index_without_a_graph_has_nothing_to_tune_and_misses_nothing(tmp_path: Path):
    build_index(inputs(sample_feed(tmp_path / "few.jsonl", 30), WordEmbedder()), tmp_path / "few", BuildOptions())
    assert verify_index(tmp_path / "few")[1] == []
    with pytest.raises(QuerySampleError, match="few: has no graph to tune"):
        retune(tmp_path / "few", queries=None, embedder=None, k=None, target=0.9)


def test_verify_says_what_is_damaged_or_missed_and_fails(built: Path):
    whole = run("verify", built)
    assert whole.exit_code == 0, whole.output
    assert "files are whole" in whole.stdout
    manifest, measured = verify_index(built)
    with pytest.raises(RecallTargetError, match=r"any-any: has ann_recall@20 of 0\.\d+ where 0\.9999 is expected"):
        check_recall(manifest, measured, 0.9999)
    queries = built / "queries.npy"
    np.save(queries, -np.load(queries))
    with pytest.raises(ArtifactError, match=r"queries.npy: has sha256"):
        verify_index(built)


def test_tune_and_verify_are_commands(built: Path):
    tuned = run("tune", built, "--target-recall", "0.99")
    assert tuned.exit_code == 0, tuned.output
    assert "asked for 0.99" in tuned.stdout
    assert json.loads((built / "manifest.json").read_text())["recall"]["target"] == 0.99
    assert run("tune", built, "--queries", built / "manifest.json").exit_code == 2
    assert type(run("verify", built, "--min-recall", "1.0").exception) is RecallTargetError
