"""What a damaged index says when it is opened."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from artifacts.store import ArtifactError, describe_files
from index.build import BuildOptions, build_index
from index.filters import Wanted
from index.load import load_index
from tests.index.support import DIM, WordEmbedder, inputs, sample_feed, unit_vectors


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("load")
    feed = sample_feed(directory / "feed.jsonl", 2100)
    build_index(inputs(feed, WordEmbedder()), directory / "whole", BuildOptions(target_recall=0.5))
    return directory / "whole"


@pytest.fixture
def damaged(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "damaged")


def remove(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [remove, truncate, flip_a_bit])
def test_damage_to_any_file_is_noticed_and_the_file_named(whole: Path, tmp_path: Path, damage: Callable):
    names = json.loads((whole / "manifest.json").read_text())["files"]
    assert {"vectors.npy", "segments/any-any/graph.hnsw", "segments/any-any/rows.npy", "ads/title.blob.npy"} <= set(
        names
    )
    for name, entry in names.items():
        if entry["bytes"]:
            copy = shutil.copytree(
                whole, tmp_path / name.replace("/", "-"), copy_function=lambda a, b: Path(b).hardlink_to(a)
            )
            target = copy / name
            content = target.read_bytes()
            target.unlink()
            target.write_bytes(content)
            damage(target)
            with pytest.raises(ArtifactError, match=name):
                load_index(copy)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "manifest.json: cannot be read"),
        (b"", "manifest.json: not a valid IndexManifest"),
        (b'{"kind": "encoder"}', "manifest.json: not a valid IndexManifest"),
    ],
    ids=["missing", "empty", "of an encoder"],
)
def test_a_manifest_that_is_none_is_named(damaged: Path, content: bytes | None, message: str):
    (damaged / "manifest.json").unlink()
    if content is not None:
        (damaged / "manifest.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=message):
        load_index(damaged)


def test_exact_search_finds_what_sorting_all_scores_finds(whole: Path):
    index = load_index(whole)
    queries = unit_vectors(3, seed=5)
    scores = queries.astype(np.float64) @ np.load(whole / "vectors.npy").T.astype(np.float64)
    expected = np.argsort(-scores, axis=1)[:, :50]
    for hits, rows, row_scores in zip(index.exact_search(queries, [Wanted(50)] * 3), expected, scores, strict=True):
        assert hits.scores == pytest.approx(row_scores[rows], abs=1e-6)
        assert row_scores[hits.rows] == pytest.approx(row_scores[rows], abs=1e-6)  # like ads may change places
        assert hits.ad_ids == [index.ads.ad_ids[row] for row in hits.rows]
    assert len(index.exact_search(queries, [Wanted(5_000)] * 3)[0].rows) == 2_100


def another_graph(directory: Path) -> None:
    from artifacts.manifest import HnswParams
    from index.hnsw import HnswGraph

    rows = np.arange(2100)
    HnswGraph.build(unit_vectors(2100, DIM // 2), rows, HnswParams(), threads=1).save(
        directory / "segments/any-any/graph.hnsw"
    )


REPLACED = {
    "a graph of another dimension": (
        another_graph,
        "graph.hnsw: is a graph of 2100 ads of dim 16 where 2100 of dim 32",
    ),
    "fewer vectors": (
        lambda directory: np.save(directory / "vectors.npy", unit_vectors(2099)),
        r"vectors.npy: has shape \(2099, 32\) where \(2100, 32\) is expected",
    ),
    "vectors of another type": (
        lambda directory: np.save(directory / "vectors.npy", unit_vectors(2100).astype(np.float16)),
        "vectors.npy: is 2-dimensional float16 where 2-dimensional float32",
    ),
    "rows beyond the ads": (
        lambda directory: np.save(directory / "segments/any-any/rows.npy", np.arange(1, 2101)),
        "rows.npy: does not hold 2100 rows of an index of 2100 ads",
    ),
    "a column of other ads": (
        lambda directory: np.save(directory / "ads/bid.npy", np.zeros(5)),
        "bid: a column of 5 ads where 2100 are expected",
    ),
}


@pytest.mark.parametrize(("replace", "message"), REPLACED.values(), ids=REPLACED)
def test_files_that_do_not_belong_together_are_refused_though_their_hashes_fit(
    damaged: Path, replace: Callable, message: str
):
    replace(damaged)
    manifest = json.loads((damaged / "manifest.json").read_text())
    manifest["files"] = {name: entry.model_dump() for name, entry in describe_files(damaged).items()}
    (damaged / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=message):
        load_index(damaged)


def test_a_load_without_verification_reads_no_more_than_it_needs(damaged: Path):
    flip_a_bit(damaged / "ads" / "description.blob.npy")
    ad_index = load_index(damaged, verify=False)
    stats = ad_index.stats()
    assert stats.ad_count == 2100
    assert stats.memory_bytes > 2100 * DIM * 4
    assert [segment.name for segment in stats.segments] == ["any-any"]


def test_hits_stay_valid_when_the_index_is_gone(whole: Path):
    [hits] = load_index(whole).search(np.load(whole / "vectors.npy")[:1], [Wanted(3)])
    titles = hits.ads.field("title", hits.rows)
    assert len(titles) == len(hits.ad_ids) == 3
    assert all(titles)


def test_requests_of_one_batch_may_ask_for_different_numbers_of_ads(whole: Path):
    ad_index, queries = load_index(whole), np.load(whole / "vectors.npy")[[5, 600, 7, 800]]
    wanted = [Wanted(top_k) for top_k in (10, 3, 10, 5000)]
    together = ad_index.search(queries, wanted)
    assert [len(hits.rows) for hits in together] == [10, 3, 10, 2100]
    for position, hits in enumerate(together):
        [alone] = ad_index.search(queries[position : position + 1], [wanted[position]])
        assert hits.rows.tolist() == alone.rows.tolist()
