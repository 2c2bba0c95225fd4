"""Recall of an index that is there already: measured again, and tuned anew without building its graphs again."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from artifacts.manifest import FileEntry, IndexManifest, RecallPoint, SegmentEntry
from artifacts.store import file_sha256, publish, save_manifest
from index.ads import load_array
from index.embed import Embedder
from index.errors import QuerySampleError, RecallTargetError
from index.exact import exact_top_k
from index.layout import QUERIES
from index.load import FrozenIndex, load_index
from index.queries import QuerySample, sample_queries
from index.recall import measure
from index.segment import Segment
from index.tune import recall_report, tune


@dataclass(frozen=True, slots=True)
class Measured:
    """A segment with a graph, and its recall now."""

    entry: SegmentEntry
    point: RecallPoint


def verify_index(directory: Path) -> tuple[IndexManifest, list[Measured]]:
    """Compare all files with their hashes, and measure each graph with the queries that it was tuned on.

    Raises:
        ArtifactError: a file is missing or damaged, or does not fit what the manifest says.
    """
    ad_index = load_index(directory)
    manifest = ad_index.manifest
    graphs = _graphs(ad_index)
    if not graphs:
        return manifest, []
    queries = _kept_queries(directory, manifest).embeddings
    return manifest, [_measured(ad_index, entry, segment, queries) for entry, segment in graphs]


def check_recall(manifest: IndexManifest, measured: Sequence[Measured], least: float) -> None:
    """Refuse an index of which a graph finds too little.

    Raises:
        RecallTargetError: naming the first segment that does.
    """
    for one in measured:
        if one.point.ann_recall < least:
            raise RecallTargetError(
                f"segment {one.entry.name}: has ann_recall@{manifest.recall.k} of {one.point.ann_recall:.4f} where"
                f" {least:g} is expected"
            )


def retune(
    directory: Path, *, queries: Path | None, embedder: Embedder | None, k: int | None, target: float | None
) -> IndexManifest:
    """Choose each graph's `ef_search` anew, and publish the index with it; the graphs stay the files they are.

    The index's version stays as well: its ads are the same.

    Args:
        directory: of the index.
        queries: to measure with; without them, those that the index was tuned on before.
        embedder: of the index's space, for `queries`.
        k: of ann_recall@k; None for the same as before.
        target: least ann_recall@k to accept; None for the same as before.

    Raises:
        ArtifactError: a file is missing or damaged, or does not fit what the manifest says.
        QuerySampleError: the queries cannot be used, or the index has no graph to tune.
        RecallTargetError: a graph does not reach the target; the index stays as it was.
    """
    ad_index = load_index(directory)
    manifest = ad_index.manifest
    k, target = k or manifest.recall.k, manifest.recall.target if target is None else target
    graphs = _graphs(ad_index)
    if not graphs:
        raise QuerySampleError(f"{directory}: has no graph to tune; all of its segments are scanned exactly")
    sample = _kept_queries(directory, manifest)
    if queries is not None:
        sample = sample_queries(queries, ad_index.ads, ad_index.vectors, embedder)
    tuned = {entry.name: _tuned(ad_index, entry, segment, sample, k, target) for entry, segment in graphs}
    segments = [tuned.get(entry.name, entry) for entry in manifest.segments]
    recall = recall_report(segments, sample, k=k, target=target)
    return _publish(directory, manifest.model_copy(update={"segments": segments, "recall": recall}), sample)


def _graphs(ad_index: FrozenIndex) -> list[tuple[SegmentEntry, Segment]]:
    segments = {segment.key.name: segment for segment in ad_index.routing.segments}
    return [(entry, segments[entry.name]) for entry in ad_index.manifest.segments if entry.kind == "hnsw"]


def _measured(ad_index: FrozenIndex, entry: SegmentEntry, segment: Segment, queries: NDArray[np.float32]) -> Measured:
    assert segment.linked is not None
    k = min(ad_index.manifest.recall.k, entry.ad_count)
    rows, _ = exact_top_k(queries, ad_index.vectors, k, rows=segment.rows)
    exact = np.searchsorted(segment.rows, rows)
    return Measured(entry, measure(segment.linked.graph, queries, exact, segment.linked.ef_search))


def _kept_queries(directory: Path, manifest: IndexManifest) -> QuerySample:
    return QuerySample(load_array(directory / QUERIES, np.float32, ndim=2), manifest.recall.query_source)


def _tuned(
    ad_index: FrozenIndex, entry: SegmentEntry, segment: Segment, sample: QuerySample, k: int, target: float
) -> SegmentEntry:
    assert segment.linked is not None
    tuned = tune(
        segment.linked.graph, ad_index.vectors, segment.rows, sample.embeddings, k=k, target=target, name=entry.name
    )
    found = {"ef_search": tuned.ef_search, "ann_recall": tuned.ann_recall, "curve": tuned.curve}
    return entry.model_copy(update=found)


def _publish(directory: Path, manifest: IndexManifest, sample: QuerySample) -> IndexManifest:
    """Replace the index by one of the same files under another name, with its own queries and manifest."""
    with publish(directory) as staging:
        for name in manifest.files.keys() - {QUERIES}:
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            (staging / name).hardlink_to(directory / name)
        np.save(staging / QUERIES, sample.embeddings)
        written = FileEntry(bytes=(staging / QUERIES).stat().st_size, sha256=file_sha256(staging / QUERIES))
        complete = manifest.model_copy(update={"files": manifest.files | {QUERIES: written}})
        save_manifest(staging, complete)
    return complete
