"""Writes a generation as an artifact of its own: what is gone is left out, what came later is linked into the graphs.

A graph is continued where most of it stays, which takes the time of the new ads alone, and built anew where too many of
its vectors are dead: those cost time in every search, and are never freed otherwise.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from artifacts.manifest import IndexManifest, SegmentEntry
from artifacts.store import describe_files, fingerprint, publish, save_manifest
from index.ads import AdTable, AdTableBuilder, load_array
from index.coarse import Coarse
from index.generation import Generation
from index.layout import ADS, ELIGIBILITY, QUERIES, SEGMENTS, VECTORS
from index.queries import QuerySample, sample_queries
from index.routing import SegmentKey
from index.segment import EXACT_BELOW, Graph, Segment, graph_type, save_segment
from index.tune import Tuned, recall_report, segment_entry, tune

MAX_DEAD_SHARE = 0.25
"""Of a graph's vectors. At 30 % a search takes 1.4 times as long (hnswlib, 20,000 vectors), recall does not suffer."""

TUNING_QUERIES = 400
"""By which a graph that has changed is tuned: ann_recall is right to about 0.003 by them, and half of the time of a
merge goes into this."""

LEAST_K = 100
"""Of the ann_recall@k to reach where the index has come from fewer ads than that."""

_CHUNK_ROWS = 1_024
_Linked = tuple[Graph, Coarse]
_NO_ROWS = np.empty(0, dtype=np.int64)


def write_base(generation: Generation, out: Path, queries: QuerySample | None, *, threads: int) -> IndexManifest:
    """Publish what a generation holds as the artifact `out`. The generation cannot be searched afterwards.

    Args:
        generation: whose graphs are continued.
        out: a directory that is not there yet, or an artifact to be replaced.
        queries: to measure recall with; made from the ads where None.
        threads: how many link new ads.
    """
    rows = generation.kept_rows()
    with publish(out) as staging:
        for part in (ADS, ELIGIBILITY, SEGMENTS):
            (staging / part).mkdir()
        ads = _kept_ads(generation, rows)
        ads.save(staging / ADS)
        generation.columns.selected(rows).save(staging / ELIGIBILITY)
        vectors = _write_vectors(staging / VECTORS, generation, rows)
        if queries is None and len(rows):
            queries = sample_queries(None, ads, vectors, None)
        if queries is not None:
            np.save(staging / QUERIES, queries.embeddings)
            queries = replace(queries, embeddings=queries.embeddings[:TUNING_QUERIES])
        writer = _SegmentWriter(generation, rows, vectors, queries, threads)
        entries = [writer.write(key, staging / SEGMENTS / key.name) for key in writer.keys]
        manifest = _manifest(generation, [entry for entry in entries if entry], len(rows), queries, staging)
        save_manifest(staging, manifest)
    return manifest


def _kept_ads(generation: Generation, rows: NDArray[np.int64]) -> AdTable:
    in_base = rows < len(generation.base.ads)
    later = AdTableBuilder()
    for ad_id, fields in generation.ads.later_ads(rows[~in_base]):
        later.append(ad_id, fields)
    bids = generation.ads.field("bid", rows)  # the one field that changes in place
    return generation.ads.base.joined(rows[in_base], later.build()).with_bids(bids)


def _write_vectors(path: Path, generation: Generation, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """The vectors of some rows, mapped, shape (n, dim)."""
    base = generation.base.vectors
    in_base = rows[rows < len(base)]
    form = {"descr": base.dtype.str, "fortran_order": False, "shape": (len(rows), base.shape[1])}
    with path.open("wb") as file:  # not through a mapping: docs/experiments.md, "live updates"
        np.lib.format.write_array_header_1_0(file, form)
        for start in range(0, len(in_base), _CHUNK_ROWS):
            file.write(base[in_base[start : start + _CHUNK_ROWS]].data)
        file.write(generation.later_vectors(rows[len(in_base) :]).data)
    return load_array(path, np.float32, ndim=2)


class _SegmentWriter:
    """Writes the segments of a generation, in the rows of its next base."""

    def __init__(
        self,
        generation: Generation,
        rows: NDArray[np.int64],
        vectors: NDArray[np.float32],
        queries: QuerySample | None,
        threads: int,
    ) -> None:
        """Take the rows (n,) that are kept, their vectors (n, dim), and what to measure recall with."""
        self._generation = generation
        self._vectors = vectors
        self._queries = queries
        self._threads = threads
        self._numbers = np.full(len(generation.ads), -1, dtype=np.int64)
        self._numbers[rows] = np.arange(len(rows))
        self._before = {segment.key: segment for segment in generation.base.routing.segments}
        self._later = {scan.key: scan for scan in generation.routing.later}
        self._entries = {entry.name: entry for entry in generation.base.manifest.segments}

    @property
    def keys(self) -> list[SegmentKey]:
        """Of all segments, in their order."""
        return sorted(self._before.keys() | self._later.keys())

    def write(self, key: SegmentKey, directory: Path) -> SegmentEntry | None:
        """Write one; None where no ad is left in it."""
        before, scan = self._before.get(key), self._later.get(key)
        kept = self._numbers[before.rows] if before else _NO_ROWS
        later = self._numbers[scan.taken()[0]] if scan else _NO_ROWS
        gone, later = np.flatnonzero(kept < 0), later[later >= 0]
        rows = np.concatenate([kept[kept >= 0], later])
        if not len(rows):
            return None
        directory.mkdir()
        linked, backend = _parts(before), self._generation.base.manifest.backend
        if linked is not None and not len(gone) and not len(later):
            save_segment(directory, rows, linked, backend)
            return self._entries[key.name]
        linked = self._linked(linked, rows, gone, later)
        save_segment(directory, rows, linked, backend)
        tuned = self._tuned(linked[0], rows, key.name) if linked is not None else None
        return segment_entry(key, len(rows), tuned)

    def _linked(
        self, before: _Linked | None, rows: NDArray[np.int64], gone: NDArray[np.int64], later: NDArray[np.int64]
    ) -> _Linked | None:
        if len(rows) < EXACT_BELOW:
            return None
        if before is not None:
            graph, coarse = before
            dead = len(graph.dead) + len(gone)
            if dead <= MAX_DEAD_SHARE * (dead + len(rows)):
                added = self._vectors[later]
                return graph.continued(gone, added, threads=self._threads), coarse.continued(gone, added)
        manifest = self._generation.base.manifest
        graph = graph_type(manifest.backend).build(self._vectors, rows, manifest.hnsw, threads=self._threads)
        return graph, Coarse.build(self._vectors, rows)

    def _tuned(self, graph: Graph, rows: NDArray[np.int64], name: str) -> Tuned:
        """Breadth for the recall that was asked for, or the most there is: an index that misses a little beats none."""
        assert self._queries is not None
        manifest = self._generation.base.manifest
        return tune(
            graph,
            self._vectors,
            rows,
            self._queries.embeddings,
            k=_k_of(manifest),
            target=manifest.recall.target,
            name=name,
            near=self._entries[name].ef_search if name in self._entries else None,
            best_effort=True,
        )


def _parts(segment: Segment | None) -> _Linked | None:
    linked = segment and segment.linked
    return (linked.graph, linked.coarse) if linked else None


def _k_of(manifest: IndexManifest) -> int:
    """Of the ann_recall@k to reach; a report says less where there were fewer ads at the time."""
    k = manifest.recall.k
    return k if any(k < entry.ad_count for entry in manifest.segments) else max(k, LEAST_K)


def _manifest(
    generation: Generation,
    segments: Sequence[SegmentEntry],
    ad_count: int,
    queries: QuerySample | None,
    staging: Path,
) -> IndexManifest:
    before = generation.base.manifest
    files = describe_files(staging)
    contents = fingerprint({name: entry.sha256 for name, entry in files.items()})
    recall = before.recall
    if segments:
        recall = recall_report(segments, queries, k=_k_of(before), target=recall.target)
    return before.model_copy(
        update={
            "created_at": datetime.now(UTC),
            "fingerprint": contents,
            "files": files,
            "index_version": f"{before.feed.name.partition('.')[0]}-{contents[:8]}",
            "ad_count": ad_count,
            "segments": list(segments),
            "recall": recall,
            "sequence": generation.sequence,
        }
    )
