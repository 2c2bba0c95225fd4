"""Typed `manifest.json`: the contract between the rooms that make artifacts and the rooms that use them."""

from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from artifacts.space import EmbeddingSpace

MANIFEST_NAME = "manifest.json"

Precision = Literal["fp32", "fp16", "int8"]
Backend = Literal["hnswlib", "faiss"]
"""The library that holds graphs; faiss keeps their vectors in float16."""


class Record(BaseModel):
    """Base of all manifest parts: immutable, and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FileEntry(Record):
    """Size and hash of one file, by which a load tells a good artifact from a damaged one."""

    bytes: int
    sha256: str


class Manifest(Record):
    """What every artifact's manifest has."""

    schema_version: Literal[1] = 1
    """Of its kind of artifact."""
    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    fingerprint: str
    """Hash of all inputs and options; a build whose fingerprint is unchanged has nothing to do."""
    space: EmbeddingSpace
    files: dict[str, FileEntry]
    """By path relative to the artifact's directory; `manifest.json` itself is not listed."""
    tools: dict[str, str]
    """Version of each package that took part."""


class ParityReport(Record):
    """How close the exported encoder is to the PyTorch original, on real queries."""

    query_count: int
    query_source: str
    cosine_mean: float
    cosine_p1: float
    cosine_min: float
    overlap_at_100: float
    """Mean share of the original's exact top 100 that the export finds too, both searching `corpus_size` ads."""
    corpus_size: int
    batch_cosine_min: float
    """Least cosine between a query encoded alone and inside a mixed batch: dynamic int8 scales span the batch."""


class TextRules(Record):
    """How text becomes token ids, beyond what `tokenizer.json` says; the prompts are part of the embedding space."""

    unicode_form: Literal["NFKC"] = "NFKC"
    max_query_tokens: int
    """Longer queries are cut, special tokens included."""
    max_ad_tokens: int
    """Longer ad texts are cut, special tokens included."""
    pad_token_id: int


class EncoderManifest(Manifest):
    """Manifest of an encoder artifact: `model.onnx`, `tokenizer.json`, golden queries with their embeddings, and this.

    The graph's inputs are `input_ids` and `attention_mask`, int64 of shape (batch, length), and for some families
    `token_type_ids`; its only output is `embedding`, float32 of shape (batch, dim).
    """

    kind: Literal["encoder"] = "encoder"
    model_version: str
    """Name and first digits of the graph's hash; appears in every answer."""
    source: str
    """The checkpoint that was exported, as it was given."""
    precision: Precision
    opset: int
    text: TextRules
    parity: ParityReport


class HnswParams(Record):
    """Construction parameters in the literature's spelling (Malkov and Yashunin, arXiv 1603.09320)."""

    M: int = Field(default=16, ge=2, le=128)
    ef_construction: int = Field(default=200, ge=8, le=4096)
    seed: int = 100


class RecallPoint(Record):
    """One step of the sweep over `ef_search`."""

    ef_search: int
    ann_recall: float
    search_us: float
    """Median microseconds a query, one thread."""


class RecallReport(Record):
    """Recall against exact search on the same embeddings."""

    k: int
    target: float
    """What each segment has to reach."""
    ann_recall: float
    """Mean over the segments, by their ads."""
    query_count: int
    query_source: str


class SegmentEntry(Record):
    """One part of the index that is searched as a whole."""

    name: str
    market: str
    """`any` where its ads name none."""
    language: str
    """As `market`."""
    kind: Literal["hnsw", "exact"]
    ad_count: int
    ef_search: int | None = Field(ge=1)
    """None where the segment is scanned exactly."""
    ann_recall: float
    """1 where it is scanned."""
    curve: list[RecallPoint]
    """How `ef_search` was chosen; empty where it is scanned."""


class FeedReport(Record):
    """What was read from the ad feed and what was left out."""

    name: str
    sha256: str
    lines: int
    ads: int
    not_active: int
    """Of the ads, those that are not to be shown until they are resumed."""
    skipped: dict[str, int]
    """Lines left out, by reason."""


class IndexManifest(Manifest):
    """Manifest of an index artifact: per-segment graphs, vectors, columns of texts and of eligibility, and this."""

    # 1 had one segment, and said nothing of eligibility.
    schema_version: Literal[2] = 2  # type: ignore[assignment]
    kind: Literal["index"] = "index"
    index_version: str
    """Feed name and first digits of a hash of all files, so equal versions are equal indexes; in every answer."""
    model_version: str | None
    """Encoder that embedded the ads; None where the feed brought its embeddings."""
    ad_count: int
    campaigns: int
    """That have a description; of any other, everything is allowed."""
    dim: int
    """Length of the ads' vectors: the space's, or one to which it lets embeddings be cut."""
    backend: Backend
    hnsw: HnswParams
    segments: list[SegmentEntry]
    """None where there is no ad."""
    sequence: int = 0
    """Of the last change of a live index that is in it; 0 where it was built from a feed."""
    recall: RecallReport
    feed: FeedReport
