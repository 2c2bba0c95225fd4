"""Feed in, columns and any ready-made embeddings out."""

from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from artifacts.manifest import FeedReport
from index.ads import AdTable, AdTableBuilder
from index.columns import EligibilityColumns
from index.errors import FeedError
from index.feed import FeedReader
from index.lines import LineReader
from index.routing import SegmentKey
from index.targeting import Campaign
from index.vectors import open_embeddings, parse_embedding

EmbeddingsFrom = Path | Literal["feed"] | None
"""Where the ads' embeddings come from: a `.npy` beside the feed, the feed's own field, or (None) an encoder."""


MAX_BAD_SHARE = 0.5
"""Of the lines; a feed with more bad lines than good must not replace an index that was built from a good one."""


@dataclass(frozen=True, slots=True)
class FeedContents:
    """The usable ads of a feed."""

    ads: AdTable
    eligibility: EligibilityColumns
    segments: dict[SegmentKey, NDArray[np.int64]]
    """Rows of each, rising."""
    report: FeedReport
    embeddings: NDArray[np.float32] | None
    """Of `ads`, shape (ad count, dim); None where an encoder is to make them."""


def read_ads(feed: Path, *, sha256: str, embeddings_from: EmbeddingsFrom, dim: int, strict: bool) -> FeedContents:
    """Read a whole feed.

    Args:
        feed: the feed.
        sha256: of the feed, for the report.
        embeddings_from: where the ads' embeddings come from.
        dim: what their length must be.
        strict: stop at the first bad line.

    Raises:
        FeedError: the feed cannot be read to its end, holds no usable ad or more bad lines than good,
            or has a bad line and `strict` is set.
        EmbeddingError: the `.npy` file does not fit the feed.
    """
    reader = FeedReader(feed, strict=strict)
    builder = AdTableBuilder()
    eligibility = EligibilityColumns()
    segments: dict[SegmentKey, array[int]] = {}
    lines: list[int] = []
    embedded = bytearray()
    for line, ad in reader:
        if embeddings_from == "feed":
            try:
                embedded += parse_embedding(ad.embedding or [], dim).tobytes()
            except ValueError as error:
                reader.skip(line, str(error))
                continue
        lines.append(line)
        builder.append(ad.ad_id, ad.columns())
        row = eligibility.append(ad)
        for key in ad.segment_keys:
            segments.setdefault(key, array("q")).append(row)
    report = reader.report(sha256=sha256, not_active=eligibility.inactive_count)
    if not lines:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in report.skipped.items()) or "it is empty"
        raise FeedError(
            f"{feed}: holds no usable ad in {report.lines:,} lines: {reasons}; expected one JSON object a line"
        )
    if reader.bad_count > MAX_BAD_SHARE * report.lines:
        raise FeedError(
            f"{feed}: {reader.bad_count:,} of {report.lines:,} lines are bad, more than half; is it the right file?"
        )
    embeddings = None
    if embeddings_from == "feed":
        embeddings = np.frombuffer(embedded, dtype=np.float32).reshape(-1, dim)
    elif embeddings_from is not None:
        by_line = open_embeddings(embeddings_from, dim=dim, line_count=report.lines)
        embeddings = by_line[np.array(lines) - 1].astype(np.float32, copy=False)
    rows = {key: np.array(segments[key], dtype=np.int64) for key in sorted(segments)}
    return FeedContents(builder.build(), eligibility, rows, report, embeddings)


def read_campaigns(path: Path, *, strict: bool) -> list[Campaign]:
    """Read what campaigns say for their ads, one a line.

    Raises:
        FeedError: the file cannot be read to its end, or a line is bad and `strict` is set.
    """
    return [campaign for _, campaign in LineReader(path, Campaign, "campaign_id", strict=strict)]
