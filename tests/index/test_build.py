"""A feed becomes a published index."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from artifacts.space import EmbeddingSpace
from index.build import BuildInputs, BuildOptions, build_index
from index.embed import ad_texts
from index.errors import BuildError, EmbeddingError, FeedError, RecallTargetError
from index.exact import exact_top_k
from index.filters import Wanted
from index.load import load_index
from index.work import work_directory
from tests.index.support import DIM, SPACE, WordEmbedder, inputs, sample_feed, unit_vectors, write_feed

AD_COUNT = 2500
QUICK = BuildOptions(target_recall=0.5)


@pytest.fixture(scope="module")
def feed(tmp_path_factory) -> Path:
    return sample_feed(tmp_path_factory.mktemp("feed") / "shop.jsonl.gz", AD_COUNT)


@pytest.fixture(scope="module")
def built(feed: Path, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("built") / "shop"
    (out.parent / "queries.tsv").write_text("query_id\ttext\n" + "\n".join(f"{i}\tdrill {i}" for i in range(300)))
    build_index(inputs(feed, WordEmbedder(), queries=out.parent / "queries.tsv"), out, BuildOptions())
    return out


def small_feed(path: Path, *extra: dict | bytes) -> Path:
    return write_feed(path, [{"ad_id": f"ad-{i}", "title": f"drill {i}"} for i in range(20)] + list(extra))


def with_embeddings(vectors) -> list[dict]:
    return [{"ad_id": f"ad-{i}", "title": f"drill {i}", "embedding": v.tolist()} for i, v in enumerate(vectors)]


def test_the_manifest_says_what_was_built(built: Path, feed: Path):
    manifest = load_index(built).manifest
    assert manifest.ad_count == manifest.feed.ads == AD_COUNT
    assert manifest.model_version == "words-1"
    assert manifest.index_version.startswith("shop-")
    assert manifest.space == SPACE
    assert manifest.recall.ann_recall >= manifest.recall.target == 0.97
    assert manifest.recall.query_source == "queries.tsv"
    assert manifest.recall.query_count == 300
    [segment] = manifest.segments
    assert (segment.name, segment.kind, segment.ad_count) == ("any-any", "hnsw", AD_COUNT)
    assert (segment.ef_search, segment.ann_recall) in [(point.ef_search, point.ann_recall) for point in segment.curve]
    assert segment.ann_recall == pytest.approx(manifest.recall.ann_recall)
    assert "hnswlib" in manifest.tools
    assert [path.name for path in built.parent.iterdir() if path.name.startswith(".")] == []


def test_the_recall_in_the_manifest_is_what_brute_force_measures(built: Path):
    ad_index, embedder = load_index(built), WordEmbedder()
    queries = np.concatenate([embedder.encode([embedder.tokenize(f"drill {i}")]) for i in range(300)])
    scores = queries @ np.load(built / "vectors.npy").T
    found = [set(hits.rows.tolist()) for hits in ad_index.search(queries, [Wanted(100)] * 300)]
    truth = [set(row) for row in np.argsort(-scores, axis=1)[:, :100].tolist()]
    recall = np.mean([len(left & right) / 100 for left, right in zip(found, truth, strict=True)])
    assert recall == pytest.approx(ad_index.manifest.recall.ann_recall, abs=0.01)  # ties, and batched queries


def test_a_query_finds_the_ads_that_exact_search_finds(built: Path):
    ad_index, embedder = load_index(built), WordEmbedder()
    queries = ad_texts(ad_index.ads, np.array([17, 1700]))
    embeddings = embedder.encode([embedder.tokenize(query) for query in queries])
    hits = ad_index.search(embeddings, [Wanted(1), Wanted(5)])
    assert [len(each.ad_ids) for each in hits] == [1, 5]
    for each, embedding, query in zip(hits, embeddings, queries, strict=True):
        expected, scores = exact_top_k(embedding[None], np.load(built / "vectors.npy"), len(each.rows))
        assert each.rows.tolist() == expected[0].tolist()
        assert each.scores == pytest.approx(scores[0], abs=1e-5)
        assert query.startswith(each.ads.field("title", each.rows)[0])


def test_unchanged_inputs_give_nothing_to_do(built: Path, feed: Path):
    queries = built.parent / "queries.tsv"
    before = (built / "manifest.json").read_bytes()
    result = build_index(inputs(feed, WordEmbedder(), queries=queries), built, BuildOptions())
    assert result.seconds == {}
    assert (built / "manifest.json").read_bytes() == before


def test_a_build_with_nothing_to_do_does_not_open_the_encoder(tmp_path: Path):
    feed, out = small_feed(tmp_path / "feed.jsonl"), tmp_path / "out"
    build_index(inputs(feed, WordEmbedder()), out, QUICK)
    embedder = WordEmbedder()
    assert build_index(inputs(feed, embedder), out, QUICK).seconds == {}
    assert embedder.encoded == 0


@pytest.mark.parametrize("change", ["feed", "encoder", "option", "queries", "campaigns", "file missing", "force"])
def test_a_changed_input_gives_another_build(tmp_path: Path, change: str):
    feed, out = small_feed(tmp_path / "feed.jsonl"), tmp_path / "out"
    (tmp_path / "queries").write_text("drill")
    (tmp_path / "campaigns").write_text('{"campaign_id": "c"}')
    build_index(inputs(feed, WordEmbedder()), out, QUICK)
    options, version, queries, campaigns, force = QUICK, "words-1", None, None, False
    match change:
        case "feed":
            small_feed(feed, {"ad_id": "more", "title": "saw"})
        case "encoder":
            version = "words-2"
        case "option":
            options = BuildOptions(target_recall=0.6)
        case "queries":
            queries = tmp_path / "queries"
        case "campaigns":
            campaigns = tmp_path / "campaigns"
        case "file missing":
            (out / "vectors.npy").unlink()
        case "force":
            force = True
    changed = inputs(feed, WordEmbedder(), queries=queries, campaigns=campaigns, version=version)
    result = build_index(changed, out, options, force=force)
    assert "publish" in result.seconds
    assert load_index(out).manifest.fingerprint == result.manifest.fingerprint


def test_a_small_index_is_scanned(tmp_path: Path):
    feed, out = small_feed(tmp_path / "feed.jsonl"), tmp_path / "out"
    manifest = build_index(inputs(feed, WordEmbedder()), out, BuildOptions()).manifest
    assert [(segment.kind, segment.ef_search) for segment in manifest.segments] == [("exact", None)]
    assert manifest.recall.ann_recall == 1
    query = np.load(out / "vectors.npy")[7:8]
    [hits] = load_index(out).search(query, [Wanted(1000)])
    assert len(hits.rows) == 20
    assert hits.ad_ids[0] == "ad-7"


def test_embeddings_of_the_feed_are_taken_as_they_are(tmp_path: Path):
    vectors = unit_vectors(30)
    feed = write_feed(tmp_path / "feed.jsonl", with_embeddings(vectors))
    manifest = build_index(inputs(feed, embeddings="feed"), tmp_path / "out", QUICK).manifest
    assert manifest.model_version is None
    assert np.load(tmp_path / "out" / "vectors.npy") == pytest.approx(vectors, abs=1e-6)


@pytest.mark.parametrize(
    ("embedding", "reason"),
    [
        (None, "embedding: missing"),
        ([1.0], "embedding: not of dim 32"),
        ([2.0] + [0.0] * 31, "embedding: norm is not 1"),
        ([0.0] * 32, "embedding: norm is not 1"),
        ([1e39] * 32, "embedding: norm is not 1"),
        (["1"] * 32, "embedding: input should be a valid number"),
    ],
    ids=["missing", "short", "long vector", "zero", "beyond float32", "text"],
)
def test_a_bad_embedding_of_the_feed_is_a_bad_line(tmp_path: Path, embedding, reason: str):
    lines = [*with_embeddings(unit_vectors(3)), {"ad_id": "bad", "title": "bad", "embedding": embedding}]
    feed = write_feed(tmp_path / "feed.jsonl", lines)
    manifest = build_index(inputs(feed, embeddings="feed"), tmp_path / "out", QUICK).manifest
    assert manifest.feed.skipped == {reason: 1}
    assert manifest.ad_count == 3
    with pytest.raises(FeedError, match=f"line 4: {reason}"):
        build_index(inputs(feed, embeddings="feed"), tmp_path / "strict", BuildOptions(strict=True))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_rows_of_an_npy_file_belong_to_lines_of_the_feed(tmp_path: Path, dtype):
    """Lines that are left out keep their rows in the file."""
    feed = small_feed(tmp_path / "feed.jsonl", b"bad", {"ad_id": "last", "title": "saw"})
    vectors = unit_vectors(22)
    np.save(tmp_path / "e.npy", vectors.astype(dtype))
    build_index(inputs(feed, embeddings=tmp_path / "e.npy"), tmp_path / "out", QUICK)
    kept = np.load(tmp_path / "out" / "vectors.npy")
    assert kept == pytest.approx(vectors[[*range(20), 21]], abs=1e-3)
    assert np.linalg.norm(kept, axis=1) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        (unit_vectors(19), r"e.npy: has shape \(19, 32\) where \(20, 32\) is expected"),
        (unit_vectors(20, 31), r"e.npy: has shape \(20, 31\) where \(20, 32\) is expected"),
        (unit_vectors(20)[0], r"e.npy: has shape \(32,\)"),
        (unit_vectors(20).astype(np.float64), "e.npy: holds float64 where float16 or float32"),
        (np.where(np.arange(20)[:, None] == 4, np.nan, unit_vectors(20)), r"e.npy: the embedding of ad 4, .* norm nan"),
        (unit_vectors(20) * np.where(np.arange(20) == 9, 0.5, 1)[:, None].astype(np.float32), r"ad 9, .* norm 0.5 "),
        (np.array([{}]), "e.npy: cannot be read as a .npy array"),
        (b"hello", "e.npy: cannot be read as a .npy array"),
    ],
    ids=["too few", "other dim", "one vector", "float64", "NaN", "not normalised", "pickled", "no array"],
)
def test_an_npy_file_that_does_not_fit_is_refused(tmp_path: Path, embeddings, message: str):
    if isinstance(embeddings, bytes):
        (tmp_path / "e.npy").write_bytes(embeddings)
    else:
        keep = embeddings.dtype in (np.float64, object) and "float64" in message
        np.save(tmp_path / "e.npy", embeddings if keep or embeddings.dtype == object else embeddings.astype(np.float32))
    feed = small_feed(tmp_path / "feed.jsonl")
    with pytest.raises(EmbeddingError, match=message):
        build_index(inputs(feed, embeddings=tmp_path / "e.npy"), tmp_path / "out", QUICK)


def test_an_encoder_that_gives_nan_is_refused(tmp_path: Path):
    class Broken(WordEmbedder):
        def encode(self, token_ids):
            return super().encode(token_ids) * np.float32("nan")

    with pytest.raises(EmbeddingError, match="the encoder: the embedding of ad 0"):
        build_index(inputs(small_feed(tmp_path / "feed.jsonl"), Broken()), tmp_path / "out", QUICK)


@pytest.mark.parametrize(
    ("feed", "message"),
    [
        (b"", "holds no usable ad in 0 lines: it is empty"),
        (b"{}\n[]\n", "holds no usable ad in 2 lines: 1 ad_id: field required, 1 not a JSON object; expected one JSON"),
        (b'{"ad_id": "a", "title": "t"}\nx\nx\n', "2 of 3 lines are bad, more than half; is it the right file"),
    ],
    ids=["empty", "only bad lines", "more bad lines than good"],
)
def test_a_feed_without_ads_is_refused(tmp_path: Path, feed: bytes, message: str):
    (tmp_path / "feed.jsonl").write_bytes(feed)
    with pytest.raises(FeedError, match=message):
        build_index(inputs(tmp_path / "feed.jsonl", WordEmbedder()), tmp_path / "out", QUICK)
    assert not (tmp_path / "out").exists()


def test_a_byte_order_mark_costs_no_ad(tmp_path: Path):
    (tmp_path / "feed.jsonl").write_bytes(b'\xef\xbb\xbf{"ad_id": "a", "title": "red shoe"}\n')
    built = build_index(inputs(tmp_path / "feed.jsonl", WordEmbedder()), tmp_path / "out", QUICK)
    assert built.manifest.ad_count == 1


def test_equal_versions_are_equal_indexes(tmp_path: Path):
    """A feed below the size of a graph gives the same files each time, and so the same version."""
    feed = small_feed(tmp_path / "feed.jsonl")
    first, second = (build_index(inputs(feed, WordEmbedder()), tmp_path / name, QUICK).manifest for name in "ab")
    (tmp_path / "other.jsonl").write_bytes(feed.read_bytes() + b'{"ad_id": "new", "title": "new ad"}\n')
    other = build_index(inputs(tmp_path / "other.jsonl", WordEmbedder()), tmp_path / "c", QUICK).manifest
    assert first.index_version == second.index_version
    assert first.index_version.split("-")[1] != other.index_version.split("-")[1]


def test_a_space_that_is_not_normalised_is_refused(tmp_path: Path):
    space = EmbeddingSpace(**(SPACE.model_dump() | {"normalized": False}))
    with pytest.raises(BuildError, match="words: an index needs an embedding space whose embeddings have norm 1"):
        build_index(BuildInputs(small_feed(tmp_path / "f"), space, None, "feed"), tmp_path / "out", QUICK)


def test_a_missed_target_keeps_the_old_index_and_the_embeddings(feed: Path, tmp_path: Path):
    out = tmp_path / "out"
    build_index(inputs(feed, WordEmbedder()), out, QUICK)
    before = load_index(out).manifest.fingerprint
    options = BuildOptions(k=10, target_recall=1.0, hnsw=QUICK.hnsw.model_copy(update={"M": 2, "ef_construction": 8}))
    with pytest.raises(RecallTargetError, match=r"ann_recall@10 of 1.0 is out of reach: the best is 0\.\d+"):
        build_index(inputs(feed, WordEmbedder()), out, options)
    assert load_index(out).manifest.fingerprint == before
    embedder = WordEmbedder()
    build_index(inputs(feed, embedder), out, BuildOptions(k=50))
    assert embedder.encoded == 1000  # the query sample, and no ad


def test_leftovers_of_other_inputs_are_dropped(feed: Path, tmp_path: Path):
    shutil.copytree(feed.parent, work := tmp_path / ".out.work")
    (work / "fingerprint").write_text("of other inputs")
    (work / "shards").mkdir()
    np.save(work / "shards" / "000000000.npy", np.zeros((512, DIM), dtype=np.float32))
    build_index(inputs(feed, WordEmbedder()), tmp_path / "out", QUICK)
    assert not work.exists()


def test_two_builds_of_one_index_do_not_mix(tmp_path: Path):
    feed, out = small_feed(tmp_path / "feed.jsonl"), tmp_path / "out"
    with (
        work_directory(out, "another build"),
        pytest.raises(BuildError, match="out: is being built by another process"),
    ):
        build_index(inputs(feed, WordEmbedder()), out, QUICK)
    build_index(inputs(feed, WordEmbedder()), out, QUICK)
