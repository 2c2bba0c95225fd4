"""Opens a published index for searching."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from artifacts.manifest import IndexManifest
from artifacts.store import ArtifactError, load_manifest, verify_files
from index.ad_index import IndexStats, SearchHits, Short
from index.ads import Ads, AdTable, load_array
from index.columns import EligibilityColumns
from index.filters import Wanted, rule_for
from index.layout import ADS, ELIGIBILITY, SEGMENTS, VECTORS
from index.ranking import Ranked
from index.routing import Routing
from index.search import exact_search, search
from index.segment import Segment, load_segment
from index.vectors import shorten

BYTES_AN_AD = 200
"""An id, and what hnswlib keeps of an element beside its file; measured on 54,667 ads."""


@dataclass(frozen=True, slots=True)
class FrozenIndex:
    """An `AdIndex` over one published artifact."""

    manifest: IndexManifest
    ads: Ads
    vectors: NDArray[np.float32]
    """One for each ad, shape (ad count, dim); mapped from disk."""
    eligibility: EligibilityColumns
    routing: Routing[Segment]

    def search(self, embeddings: NDArray[np.float32], wanted: Sequence[Wanted]) -> list[SearchHits]:
        """Find the best ads that each query may get: embeddings (n, dim), and what each of the n asks for."""
        fitting = shorten(embeddings, self.vectors.shape[1])
        found = search(self.routing.route, self.eligibility, fitting, wanted)
        return [self._hits(ranked, one) for ranked, one in zip(found, wanted, strict=True)]

    def narrows(self, top_k: int, effort: float) -> bool:
        """Not where all is scanned, or where `top_k` asks for as much as `ef_search` does."""
        return any(
            max(round(segment.linked.ef_search * effort), top_k) < max(segment.linked.ef_search, top_k)
            for segment in self.routing.segments
            if segment.linked is not None
        )

    def still_eligible(self, hits: SearchHits, wanted: Wanted) -> SearchHits:
        """Those that may be shown now; none of another index's."""
        if hits.ads is not self.ads:
            return replace(hits, rows=hits.rows[:0], scores=hits.scores[:0])
        rule = rule_for(self.eligibility, wanted)
        rows, scores = hits.rows, hits.scores
        passing = rule.passes(rows)
        rows, scores = rows[passing], scores[passing]
        stays = rule.thins(rows)
        return replace(hits, rows=rows[stays], scores=scores[stays])

    def exact_search(self, embeddings: NDArray[np.float32], wanted: Sequence[Wanted]) -> list[SearchHits]:
        """Compare each query, embeddings (n, dim), with every ad it may get."""
        fitting = shorten(embeddings, self.vectors.shape[1])
        found = exact_search(self.routing.route, self.eligibility, fitting, wanted)
        return [self._hits(ranked, one) for ranked, one in zip(found, wanted, strict=True)]

    def stats(self) -> IndexStats:
        """Counts and sizes."""
        memory_bytes = sum(segment.memory_bytes for segment in self.routing.segments)
        return IndexStats(len(self.ads), tuple(self.manifest.segments), memory_bytes)

    def _hits(self, ranked: Ranked, wanted: Wanted) -> SearchHits:
        short: Short | None = None
        if len(ranked.rows) < wanted.top_k:
            there = self.eligibility.count - self.eligibility.gone_count
            short = "index_smaller_than_top_k" if len(ranked.rows) == there else "filtered"
        for_others = not self.eligibility.has_partial_campaigns
        return SearchHits(ranked.rows, ranked.scores, self.ads, short, for_others)


def load_index(directory: Path, *, verify: bool = True, threads: int = 1) -> FrozenIndex:
    """Open an index artifact.

    Args:
        directory: what `build_index` published.
        verify: compare every file with the hash in the manifest first; reads all of them once.
        threads: how many compare.

    Raises:
        ArtifactError: a file is missing or damaged, or does not fit what the manifest says.
    """
    manifest = load_manifest(directory, IndexManifest)
    if verify:
        verify_files(directory, manifest.files, threads=threads)
    ads = AdTable.load(directory / ADS, manifest.ad_count)
    vectors = load_array(directory / VECTORS, np.float32, ndim=2)
    expected = (manifest.ad_count, manifest.dim)
    if vectors.shape != expected:
        raise ArtifactError(f"{directory / VECTORS}: has shape {vectors.shape} where {expected} is expected")
    eligibility = EligibilityColumns.load(directory / ELIGIBILITY, manifest.ad_count)
    backend, recall_k = manifest.backend, manifest.recall.k
    segments = [
        load_segment(directory / SEGMENTS / entry.name, entry, vectors, backend, recall_k=recall_k)
        for entry in manifest.segments
    ]
    return FrozenIndex(manifest, ads, vectors, eligibility, Routing(segments))


def needed_bytes(manifest: IndexManifest) -> int:
    """Memory that opening an index takes: graphs, scanned vectors, eligibility, ids. What is mapped is not counted."""
    held = (f"{SEGMENTS}/", f"{ELIGIBILITY}/")
    graphs = sum(entry.bytes for name, entry in manifest.files.items() if name.startswith(held))
    scanned = sum(segment.ad_count for segment in manifest.segments if segment.kind == "exact")
    return graphs + scanned * manifest.dim * np.dtype(np.float32).itemsize + BYTES_AN_AD * manifest.ad_count
