"""Ad feed in, published index out."""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from artifacts.manifest import (
    Backend,
    EncoderManifest,
    FeedReport,
    HnswParams,
    IndexManifest,
    RecallReport,
    SegmentEntry,
)
from artifacts.space import EmbeddingSpace
from artifacts.store import (
    check_replaceable,
    describe_files,
    file_sha256,
    fingerprint,
    is_current,
    load_manifest,
    publish,
    save_manifest,
    tool_versions,
)
from cores import usable_cores
from index.ad_document import write_campaign
from index.embed import MAX_BATCH_TOKENS, SHARD_ADS, Embedder, embed_ads
from index.errors import BuildError
from index.ingest import EmbeddingsFrom, FeedContents, read_ads, read_campaigns
from index.layout import ADS, CAMPAIGNS, ELIGIBILITY, QUERIES, SEGMENTS, VECTORS
from index.queries import QuerySample, sample_queries
from index.routing import SegmentKey
from index.segment import Graph, build_segment, graph_type
from index.tune import recall_report, segment_entry, tune
from index.vectors import normalize, shorten
from index.work import drop_leftovers, work_directory

_FORMAT = 3
"""Part of every fingerprint; to be raised when the same inputs come to give another artifact."""

_TOOLS = ("hlm-retrieval", "faiss-cpu", "hnswlib", "numpy", "onnxruntime", "tokenizers")


@dataclass(frozen=True, slots=True)
class EncoderInput:
    """An encoder artifact; opened only by a build that has something to do."""

    manifest: EncoderManifest
    load: Callable[[], Embedder]


@dataclass(frozen=True, slots=True)
class BuildInputs:
    """What an index is made from."""

    feed: Path
    space: EmbeddingSpace
    encoder: EncoderInput | None
    """Embeds the query sample, and the ads unless their embeddings are given."""
    embeddings: EmbeddingsFrom = None
    queries: Path | None = None
    """Queries to measure recall with."""
    campaigns: Path | None = None
    """What campaigns say for their ads, one a line."""


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How it is made."""

    hnsw: HnswParams = field(default_factory=HnswParams)
    k: int = 100
    """Of the ann_recall@k to reach."""
    target_recall: float = 0.97
    strict: bool = False
    """Stop at the first bad line of the feed."""
    backend: Backend = "hnswlib"
    dim: int | None = None
    """To cut embeddings to, where their space allows it; None keeps them whole."""


@dataclass(frozen=True, slots=True)
class BuildResult:
    """What came of a build."""

    manifest: IndexManifest
    seconds: dict[str, float]
    """By phase; empty where the index was up to date."""


def build_index(inputs: BuildInputs, out: Path, options: BuildOptions, *, force: bool = False) -> BuildResult:
    """Build and publish an index, unless `out` already is the one that these inputs give.

    The same inputs give the same columns, vectors and query sample, bit for bit, also after a kill and a second run.
    The graph differs from build to build where more than one thread builds it (see `HnswGraph.build`), and so may
    `ef_search`, by a step.

    Raises:
        HlmError: an input cannot be used, the recall is out of reach, or another process builds the same index.
    """
    _check(inputs, options)
    check_replaceable(out)
    feed_sha256 = _sha256(inputs.feed)
    ads_key = _ads_fingerprint(inputs, feed_sha256)
    index_key = _index_fingerprint(inputs, options, ads_key)
    if not force and is_current(out, IndexManifest, index_key):
        drop_leftovers(out)
        return BuildResult(load_manifest(out, IndexManifest), {})
    phases = _Phases()
    with work_directory(out, ads_key) as work:
        parts = _fresh_directory(work / "parts")
        embedder = inputs.encoder.load() if inputs.encoder else None
        with phases("feed"):
            contents = read_ads(
                inputs.feed,
                sha256=feed_sha256,
                embeddings_from=inputs.embeddings,
                dim=inputs.space.dim,
                strict=options.strict,
            )
            campaigns = read_campaigns(inputs.campaigns, strict=options.strict) if inputs.campaigns else []
            for campaign in campaigns:
                contents.eligibility.set_campaign(campaign)
            contents.ads.save(_fresh_directory(parts / ADS))
            contents.eligibility.save(_fresh_directory(parts / ELIGIBILITY))
            if campaigns:
                (parts / CAMPAIGNS).write_bytes(b"\n".join(map(write_campaign, campaigns)))
        with phases("embeddings"):
            vectors = _write_vectors(parts / VECTORS, contents, inputs, embedder, work)
            vectors = _cut(parts / VECTORS, vectors, options.dim)
        with phases("graphs"):
            graphs = _build_segments(_fresh_directory(parts / SEGMENTS), contents.segments, vectors, options)
        with phases("recall"):
            sample = sample_queries(inputs.queries, contents.ads, vectors, embedder) if any(graphs.values()) else None
            if sample:
                np.save(parts / QUERIES, sample.embeddings)
            entries = [
                _entry(key, rows, graphs[key], vectors, sample, options) for key, rows in contents.segments.items()
            ]
        with phases("publish"):
            recall = recall_report(entries, sample, k=options.k, target=options.target_recall)
            manifest = _manifest(inputs, options, index_key, contents.report, entries, recall, len(campaigns))
            manifest = _publish(parts, out, manifest)
    return BuildResult(manifest, phases.seconds)


class _Phases:
    """Times named blocks."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started


def _check(inputs: BuildInputs, options: BuildOptions) -> None:
    graph_type(options.backend)  # says now, not in an hour, that a package is missing
    if not inputs.space.normalized:
        raise BuildError(f"{inputs.space.teacher}: an index needs an embedding space whose embeddings have norm 1")
    if inputs.embeddings is None and inputs.encoder is None:
        raise BuildError(f"{inputs.feed}: needs an encoder for its ads, or their embeddings")
    if options.dim not in (None, inputs.space.dim, *inputs.space.matryoshka_dims):
        allowed = ", ".join(map(str, inputs.space.matryoshka_dims)) or "none"
        raise BuildError(
            f"{inputs.space.teacher}: its embeddings of dim {inputs.space.dim} cannot be cut to {options.dim}; lengths"
            f" it was trained for: {allowed}"
        )


def _sha256(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise BuildError(f"{path}: cannot be read ({error.strerror})") from error


def _ads_fingerprint(inputs: BuildInputs, feed_sha256: str) -> str:
    """Of all that decides the ads' columns and vectors."""
    precomputed = inputs.embeddings
    parts: dict[str, object] = {
        "format": _FORMAT,
        "feed": feed_sha256,
        "space": inputs.space.space_id,
        "embeddings": _sha256(precomputed) if isinstance(precomputed, Path) else precomputed,
    }
    if precomputed is None and inputs.encoder is not None:
        manifest = inputs.encoder.manifest
        parts["encoder"] = sorted((name, entry.sha256) for name, entry in manifest.files.items())
        parts["text"] = manifest.text.model_dump_json()
        parts["batching"] = (MAX_BATCH_TOKENS, SHARD_ADS)
    return fingerprint(parts)


def _index_fingerprint(inputs: BuildInputs, options: BuildOptions, ads_key: str) -> str:
    """Of everything."""
    query_encoder = inputs.encoder and inputs.encoder.manifest.model_version
    parts = {"ads": ads_key, "options": options, "query_encoder": query_encoder}
    parts |= {name: path and _sha256(path) for name, path in _beside_the_feed(inputs).items()}
    return fingerprint(parts)


def _beside_the_feed(inputs: BuildInputs) -> dict[str, Path | None]:
    return {"queries": inputs.queries, "campaigns": inputs.campaigns}


def _fresh_directory(path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def _write_vectors(
    path: Path, contents: FeedContents, inputs: BuildInputs, embedder: Embedder | None, work: Path
) -> NDArray[np.float32]:
    """Fill the artifact's vectors, shape (ad count, dim), and return them mapped."""
    shape = (len(contents.ads), inputs.space.dim)
    vectors: NDArray[np.float32] = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    if contents.embeddings is not None:
        vectors[:] = contents.embeddings
    else:
        assert embedder is not None
        shards = work / "shards"
        shards.mkdir(exist_ok=True)
        embed_ads(contents.ads, embedder, vectors, shards, threads=usable_cores())
    normalize(vectors, str(inputs.embeddings or "the encoder"))
    return vectors


def _cut(path: Path, vectors: NDArray[np.float32], dim: int | None) -> NDArray[np.float32]:
    """Replace the artifact's vectors by the first `dim` numbers of each, and return them mapped."""
    if dim in (None, vectors.shape[1]):
        return vectors
    making = path.with_name("cut.npy")
    cut: NDArray[np.float32] = np.lib.format.open_memmap(making, "w+", np.float32, (len(vectors), dim))
    for start in range(0, len(vectors), SHARD_ADS):
        cut[start : start + SHARD_ADS] = shorten(vectors[start : start + SHARD_ADS], dim)
    making.replace(path)
    return cut


def _build_segments(
    directory: Path,
    segments: Mapping[SegmentKey, NDArray[np.int64]],
    vectors: NDArray[np.float32],
    options: BuildOptions,
) -> dict[SegmentKey, Graph | None]:
    """Write all segments; gives the graphs of those that have one."""
    return {
        key: build_segment(
            _fresh_directory(directory / key.name),
            vectors,
            rows,
            options.hnsw,
            backend=options.backend,
            threads=usable_cores(),
        )
        for key, rows in segments.items()
    }


def _entry(
    key: SegmentKey,
    rows: NDArray[np.int64],
    graph: Graph | None,
    vectors: NDArray[np.float32],
    sample: QuerySample | None,
    options: BuildOptions,
) -> SegmentEntry:
    """What the manifest says of a segment; a graph's `ef_search` is chosen on the way."""
    tuned = None
    if graph is not None and sample is not None:
        tuned = tune(graph, vectors, rows, sample.embeddings, k=options.k, target=options.target_recall, name=key.name)
    return segment_entry(key, len(rows), tuned)


def _manifest(
    inputs: BuildInputs,
    options: BuildOptions,
    index_key: str,
    feed: FeedReport,
    segments: list[SegmentEntry],
    recall: RecallReport,
    campaigns: int,
) -> IndexManifest:
    """All of the manifest but the files."""
    embedded_here = inputs.embeddings is None and inputs.encoder is not None
    return IndexManifest(
        fingerprint=index_key,
        space=inputs.space,
        files={},
        tools=tool_versions(_TOOLS),
        index_version="",  # follows from the files, when they are all there
        model_version=inputs.encoder.manifest.model_version if embedded_here and inputs.encoder else None,
        ad_count=feed.ads,
        campaigns=campaigns,
        dim=options.dim or inputs.space.dim,
        backend=options.backend,
        hnsw=options.hnsw,
        segments=segments,
        recall=recall,
        feed=feed,
    )


def _publish(parts: Path, out: Path, manifest: IndexManifest) -> IndexManifest:
    with publish(out) as staging:
        for part in parts.iterdir():
            part.rename(staging / part.name)
        files = describe_files(staging)
        contents = fingerprint({name: entry.sha256 for name, entry in files.items()})
        version = f"{manifest.feed.name.partition('.')[0]}-{contents[:8]}"
        complete = manifest.model_copy(update={"files": files, "index_version": version})
        save_manifest(staging, complete)
    return complete
