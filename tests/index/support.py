"""What the tests of this room share: an embedder without a model, feeds, and the inputs of a build."""

import gzip
import json
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifacts.manifest import EncoderManifest, FileEntry, ParityReport, TextRules
from artifacts.space import EmbeddingSpace
from index.build import BuildInputs, EncoderInput
from index.ingest import EmbeddingsFrom
from samples.generate import generate_ads

DIM = 32
SPACE = EmbeddingSpace(teacher="words", revision="1", dim=DIM, pooling="mean", normalized=True)


class WordEmbedder:
    """Adds up a vector for each word. As with dynamic int8, the batch shows in the last digits of an embedding."""

    def __init__(self, dim: int = DIM) -> None:
        self._words = np.random.default_rng(0).standard_normal((4096, dim)).astype(np.float32)
        self.encoded = 0

    def tokenize(self, query: str) -> list[int]:
        return [zlib.crc32(word.encode()) % len(self._words) for word in query.lower().split()] or [0]

    def tokenize_ads(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.tokenize(text) for text in texts]

    def encode(self, token_ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        self.encoded += len(token_ids)
        sums = np.stack([self._words[list(ids)].sum(axis=0) for ids in token_ids])
        sums += 1e-4 * max(map(len, token_ids))
        scaled: NDArray[np.float32] = sums / np.linalg.norm(sums, axis=1, keepdims=True)
        return scaled


def unit_vectors(count: int, dim: int = DIM, *, seed: int = 0) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    scaled: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return scaled


def write_feed(path: Path, lines: Iterable[dict[str, Any] | bytes]) -> Path:
    """Write a feed of ads and raw lines, compressed where the name says so."""
    content = b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


def sample_feed(path: Path, ad_count: int) -> Path:
    """Write a feed of made-up ads, all of them active and for any market, so that they are one segment."""
    everywhere = {"status": "active", "market": None, "language": None}
    return write_feed(path, ({**ad, **everywhere} for ad in generate_ads(ad_count, seed=3)))


def encoder_manifest(version: str = "words-1") -> EncoderManifest:
    return EncoderManifest(
        fingerprint=version,
        space=SPACE,
        files={"model.onnx": FileEntry(bytes=1, sha256=version)},
        tools={},
        model_version=version,
        source="words",
        precision="fp32",
        opset=17,
        text=TextRules(max_query_tokens=64, max_ad_tokens=256, pad_token_id=0),
        parity=ParityReport(
            query_count=1,
            query_source="none",
            cosine_mean=1,
            cosine_p1=1,
            cosine_min=1,
            overlap_at_100=1,
            corpus_size=1,
            batch_cosine_min=1,
        ),
    )


def inputs(
    feed: Path,
    embedder: WordEmbedder | None = None,
    *,
    embeddings: EmbeddingsFrom = None,
    queries: Path | None = None,
    campaigns: Path | None = None,
    version: str = "words-1",
) -> BuildInputs:
    encoder = None if embedder is None else EncoderInput(encoder_manifest(version), lambda: embedder)
    return BuildInputs(feed, SPACE, encoder, embeddings, queries, campaigns)
