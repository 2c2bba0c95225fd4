"""Whether a loaded release answers as it should on this machine, before any caller sees it.

Hashes say that the files are those that were made; this says that they do here what they did where they were made: on
another CPU, with another onnxruntime, with this pair of encoder and index.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from artifacts.golden import Golden
from artifacts.manifest import EncoderManifest, IndexManifest
from index.ad_index import SearchHits
from index.filters import Wanted
from index.recall import ann_recall
from service.encoder import Encoder
from service.errors import ReleaseError
from service.release import Release
from service.settings import ReleaseSettings, SwapSettings
from service.shapes import batch_buckets

COSINE_SLACK = 0.005
"""What another machine may cost: int8 rounds another way there. Any other checkpoint is 0.05 or more off."""
OVERLAP_SLACK = 0.1
"""From the parity report's 2,500 ads to an index of any size, and from 1,000 queries to the golden ones. int8 MiniLM on
54,667, 19,406, 6,764 and 2,755 ads: 0.92, 0.90, 0.94 and 0.94 where the report says 0.938."""
RECALL_SLACK = 0.05
"""Between the queries that the index was tuned on and the golden ones; a catalogue of computer parts showed 0.052."""
DEVIATIONS = 3
"""Standard errors that chance may take a mean of the golden queries from what it estimates: once in 740 checks."""

Embeddings = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Figures:
    """What verification measured on the golden queries."""

    cosine_min: float
    """Between the encoder's embedding and the original's."""
    overlap: float
    """Mean share of the ads found by the original's embedding that are found by the encoder's."""
    ann_recall: float


def verify(
    wanted: ReleaseSettings, release: Release, manifest: EncoderManifest, golden: Golden, bounds: SwapSettings
) -> Figures:
    """Hold a release's answers to the golden queries against what its manifests promise.

    Args:
        wanted: where it was loaded from.
        release: whose encoder and index are of one embedding space.
        manifest: of the encoder.
        golden: of the encoder.
        bounds: take the place of the derived ones where they are set.

    Raises:
        ReleaseError: a figure is below its bound.
    """
    served = _encode_alone(wanted, release.encoder, golden.queries)
    norms = np.linalg.norm(served, axis=1) * np.linalg.norm(golden.embeddings, axis=1)
    cosine_min = float(((served * golden.embeddings).sum(axis=1) / norms).min())
    least = manifest.parity.cosine_min - COSINE_SLACK
    if not cosine_min >= least:  # so written, NaN is too little as well
        raise ReleaseError(
            f"encoder {wanted.encoder}: a golden query's embedding has cosine {cosine_min:.4f} to the original's where"
            f" at least {least:.4f} is expected"
        )
    overlap, recall = _search_figures(release, served, golden.embeddings)
    _check_overlap(wanted, overlap, manifest, release.ad_index.manifest, bounds.min_golden_overlap)
    _check_recall(wanted, recall, release.ad_index.manifest, len(golden.queries), bounds.min_ann_recall)
    return Figures(cosine_min, overlap, recall)


def warm_up(release: Release, max_batch_size: int) -> None:
    """Run the whole pipeline at each batch size bucket, so that no request pays for first-time allocations.

    Raises:
        ReleaseError: an embedding is not finite.
    """
    token_ids = release.encoder.tokenize("warm up")
    for batch_size in batch_buckets(max_batch_size):
        embeddings = release.encoder.encode([token_ids] * batch_size)
        if not np.isfinite(embeddings).all():
            raise ReleaseError(f"release {release.name}: a batch of {batch_size} gives embeddings that are not finite")
        release.ad_index.search(embeddings, [Wanted(100)] * batch_size)


def _encode_alone(wanted: ReleaseSettings, encoder: Encoder, queries: Sequence[str]) -> Embeddings:
    """Embeddings (n, dim), each query by itself: in a batch, int8 scales depend on the others."""
    rows = [encoder.encode([encoder.tokenize(query)]) for query in queries]
    for row in rows:
        if row.shape != (1, encoder.space.dim):
            raise ReleaseError(
                f"encoder {wanted.encoder}: makes embeddings of shape {row.shape} of one query where"
                f" {(1, encoder.space.dim)} is expected"
            )
    return np.concatenate(rows)


def _search_figures(release: Release, served: Embeddings, original: Embeddings) -> tuple[float, float]:
    """Overlap of what both embeddings find, and ann_recall of the original's."""
    ad_index = release.ad_index
    wanted = [Wanted(ad_index.manifest.recall.k, at=time.time())] * len(served)
    found, expected = ad_index.search(served, wanted), ad_index.search(original, wanted)
    overlap = ann_recall(_rows(found), _rows(expected))
    if all(segment.kind == "exact" for segment in ad_index.manifest.segments):
        return overlap, 1.0
    return overlap, ann_recall(_rows(expected), _rows(ad_index.exact_search(original, wanted)))


def _rows(answers: Sequence[SearchHits]) -> list[NDArray[np.int64]]:
    return [hits.rows for hits in answers]


def _check_overlap(
    wanted: ReleaseSettings, overlap: float, encoder: EncoderManifest, ads: IndexManifest, bound: float | None
) -> None:
    """The graph misses ads too, and two near queries do not miss the same ones."""
    least = encoder.parity.overlap_at_100 * ads.recall.ann_recall - OVERLAP_SLACK if bound is None else bound
    if overlap < least:
        raise ReleaseError(
            f"encoder {wanted.encoder} on index {wanted.index}: finds {overlap:.3f} of the golden queries' ads that the"
            f" original finds where at least {least:.3f} is expected (swap.min_golden_overlap)"
        )


def _check_recall(
    wanted: ReleaseSettings, recall: float, ads: IndexManifest, query_count: int, bound: float | None
) -> None:
    """A query's recall lies in [0, 1], so its variance is at most m (1 - m) about the mean m, whatever its shape."""
    m = ads.recall.ann_recall
    least = m - DEVIATIONS * math.sqrt(m * (1 - m) / query_count) - RECALL_SLACK if bound is None else bound
    if recall < least:
        raise ReleaseError(
            f"index {wanted.index}: the graph finds {recall:.3f} of what exact search finds for the golden queries"
            f" where at least {least:.3f} is expected of an index with ann_recall {m:.3f} (swap.min_ann_recall)"
        )
