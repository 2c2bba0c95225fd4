"""Opens a published index for searching."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from artifacts.manifest import IndexManifest
from artifacts.store import ArtifactError, load_manifest, verify_files
from index.ad_index import IndexStats, SearchHits
from index.ads import AdTable, load_array
from index.exact import exact_top_k
from index.layout import ADS, SEGMENTS, VECTORS
from index.segment import WHOLE, Segment, load_segment

BYTES_AN_AD = 200
"""An id, and what hnswlib keeps of an element beside its file; measured on 54,667 ads."""


@dataclass(frozen=True, slots=True)
class FrozenIndex:
    """An `AdIndex` over one published artifact; nothing in it ever changes."""

    manifest: IndexManifest
    ads: AdTable
    vectors: NDArray[np.float32]
    """One for each ad, shape (ad count, dim); mapped from disk."""
    segments: dict[str, Segment]

    def search(self, embeddings: NDArray[np.float32], top_k: Sequence[int], *, effort: float = 1.0) -> list[SearchHits]:
        """Find the best ads of each query: embeddings (n, dim), and how many ads each of the n asks for."""
        segment = self.segments[WHOLE]
        answers: dict[int, SearchHits] = {}
        for k in set(top_k):  # one call for all that ask for as many, so that none pays for another's breadth
            positions = [position for position, asked in enumerate(top_k) if asked == k]
            rows, scores = segment.search(embeddings[positions], k, effort=effort)
            for found, position in enumerate(positions):
                answers[position] = SearchHits(rows[found], scores[found], self.ads)
        return [answers[position] for position in range(len(top_k))]

    def narrows(self, top_k: int, effort: float) -> bool:
        """Not where a segment is scanned, or where `top_k` asks for as much as `ef_search` does."""
        ef_search = next(entry.ef_search for entry in self.manifest.segments if entry.name == WHOLE)
        return ef_search is not None and max(round(ef_search * effort), top_k) < max(ef_search, top_k)

    def still_eligible(self, hits: SearchHits) -> SearchHits:
        """All of them: only ads that may be shown are built into the index, and nothing in it changes."""
        return hits

    def exact_search(self, embeddings: NDArray[np.float32], top_k: int) -> list[SearchHits]:
        """Compare each query, embeddings (n, dim), with every ad; reads all vectors, in chunks without the GIL."""
        rows, scores = exact_top_k(embeddings, self.vectors, top_k)
        return [SearchHits(*found, self.ads) for found in zip(rows, scores, strict=True)]

    def stats(self) -> IndexStats:
        """Counts and sizes."""
        memory_bytes = sum(segment.memory_bytes for segment in self.segments.values())
        return IndexStats(len(self.ads), tuple(self.manifest.segments), memory_bytes)


def load_index(directory: Path, *, verify: bool = True) -> FrozenIndex:
    """Open an index artifact.

    Args:
        directory: what `build_index` published.
        verify: compare every file with the hash in the manifest first; reads all of them once.

    Raises:
        ArtifactError: a file is missing or damaged, or does not fit what the manifest says.
    """
    manifest = load_manifest(directory, IndexManifest)
    if verify:
        verify_files(directory, manifest.files)
    ads = AdTable.load(directory / ADS, manifest.ad_count)
    vectors = load_array(directory / VECTORS, np.float32, ndim=2)
    expected = (manifest.ad_count, manifest.space.dim)
    if vectors.shape != expected:
        raise ArtifactError(f"{directory / VECTORS}: has shape {vectors.shape} where {expected} is expected")
    segments = {
        entry.name: load_segment(directory / SEGMENTS / entry.name, entry, vectors) for entry in manifest.segments
    }
    return FrozenIndex(manifest, ads, vectors, segments)


def needed_bytes(manifest: IndexManifest) -> int:
    """Memory that opening an index takes: graphs, scanned vectors and ids. What is mapped from disk is not counted."""
    graphs = sum(entry.bytes for name, entry in manifest.files.items() if name.startswith(f"{SEGMENTS}/"))
    scanned = sum(segment.ad_count for segment in manifest.segments if segment.kind == "exact")
    return graphs + scanned * manifest.space.dim * np.dtype(np.float32).itemsize + BYTES_AN_AD * manifest.ad_count
