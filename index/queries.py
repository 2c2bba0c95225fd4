"""The queries on which recall is measured: real ones where they are given, stand-ins made from the ads otherwise."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.ads import Ads
from index.embed import Embedder, embed_queries
from index.errors import QuerySampleError
from index.vectors import shorten

SAMPLE_SIZE = 1000
"""Queries in a sample: the mean of 1,000 recalls near 0.97 is known to about 0.002."""

TITLE_WORDS = 5
"""About what people type, so that a cut title is as short as a query."""

NOISE_NORM = 0.75
"""Length of the noise added to an ad's vector; leaves a cosine of 0.8 to the ad, as a query may have to its best ad."""

_SEED = 1


@dataclass(frozen=True, slots=True)
class QuerySample:
    """Query embeddings (n, dim) and, in words, where they come from."""

    embeddings: NDArray[np.float32]
    source: str


def sample_queries(path: Path | None, ads: Ads, vectors: NDArray[np.float32], embedder: Embedder | None) -> QuerySample:
    """Make the sample: from a file of queries, else from ad titles, else, without an encoder, from ad vectors (n, dim).

    What the encoder makes is cut to the length of the vectors.

    Raises:
        QuerySampleError: the file cannot be used, or there is no encoder for its queries.
    """
    generator = np.random.default_rng(_SEED)
    if path is not None:
        if embedder is None:
            raise QuerySampleError(f"{path}: queries need an encoder, and only precomputed embeddings were given")
        queries = read_queries(path)
        chosen = _choose(len(queries), generator)
        embeddings = embed_queries([queries[row] for row in chosen], embedder)
        return QuerySample(shorten(embeddings, vectors.shape[1]), path.name)
    chosen = _choose(len(ads), generator)
    if embedder is not None:
        titles = [" ".join(title.split()[:TITLE_WORDS]) for title in ads.field("title", chosen)]
        embeddings = embed_queries(titles, embedder)
        return QuerySample(shorten(embeddings, vectors.shape[1]), f"first {TITLE_WORDS} words of ad titles")
    return QuerySample(_with_noise(vectors[chosen], generator), "ad embeddings with noise")


def read_queries(path: Path) -> Sequence[str]:
    """Distinct queries of a file: the column `text` of a table with a header line, else one query a line.

    Raises:
        QuerySampleError: the file cannot be read or holds no query.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise QuerySampleError(f"{path}: cannot be read as queries: {error}") from error
    header = lines[0].rstrip("\r").split("\t") if lines else []
    if "text" in header[1:]:
        column = header.index("text")
        lines = [fields[column] for line in lines[1:] if len(fields := line.split("\t")) > column]
    queries = list(dict.fromkeys(stripped for line in lines if (stripped := line.strip())))
    if not queries:
        raise QuerySampleError(
            f"{path}: holds no query; expected query_id<TAB>text under a header, or one query a line"
        )
    return queries


def _choose(count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    return np.sort(generator.choice(count, size=min(count, SAMPLE_SIZE), replace=False))


def _with_noise(vectors: NDArray[np.float32], generator: np.random.Generator) -> NDArray[np.float32]:
    noise = generator.standard_normal(vectors.shape, dtype=np.float32)
    noisy = vectors + noise * np.float32(NOISE_NORM / np.sqrt(vectors.shape[1]))
    scaled: NDArray[np.float32] = noisy / np.linalg.norm(noisy, axis=1, keepdims=True)
    return scaled
