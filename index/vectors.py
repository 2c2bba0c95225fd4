"""Embeddings that come ready made, and the checks that all vectors pass on their way into an index."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import ValidationError

from artifacts.space import EmbeddingSpace
from index.errors import EmbeddingError

NORM_TOLERANCE = 1e-3
"""Twice what storing a normalised vector as float16 costs; a vector further off was never normalised."""

_CHUNK_ROWS = 16384


def open_embeddings(path: Path, *, dim: int, line_count: int) -> NDArray[np.floating]:
    """Map a `.npy` file of one embedding for each line of the feed, shape (line_count, dim), float16 or float32.

    Raises:
        EmbeddingError: it cannot be mapped, or is of another type or shape.
    """
    try:
        embeddings: NDArray[np.floating] = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise EmbeddingError(f"{path}: cannot be read as a .npy array: {error}") from error
    if not isinstance(embeddings, np.ndarray):
        raise EmbeddingError(f"{path}: is an archive of arrays where one .npy array is expected")
    if embeddings.dtype not in (np.float16, np.float32):
        raise EmbeddingError(f"{path}: holds {embeddings.dtype} where float16 or float32 is expected")
    if embeddings.shape != (line_count, dim):
        raise EmbeddingError(
            f"{path}: has shape {embeddings.shape} where {(line_count, dim)} is expected:"
            " a row for each line of the feed, of the embedding space's dim"
        )
    return embeddings


def read_space(path: Path) -> EmbeddingSpace:
    """Read the embedding space from a JSON file: a manifest that has one, or nothing but the space.

    Raises:
        EmbeddingError: the file has no embedding space.
    """
    try:
        document = orjson.loads(path.read_bytes())
        return EmbeddingSpace.model_validate(document.get("space", document))
    except (OSError, AttributeError, orjson.JSONDecodeError, ValidationError) as error:
        raise EmbeddingError(
            f"{path}: holds no embedding space; expected an encoder's manifest.json or its part `space`"
        ) from error


def parse_embedding(numbers: Sequence[float], dim: int) -> NDArray[np.float32]:
    """The embedding (dim,) that a line of a feed brings.

    Raises:
        ValueError: it has none, or one of another length or norm, in few distinct words.
    """
    with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite, and so a fault
        embedding = np.array(numbers, dtype=np.float32)
    if not embedding.size:
        raise ValueError("embedding: missing")
    if len(embedding) != dim:
        raise ValueError(f"embedding: not of dim {dim}")
    if not abs(np.linalg.norm(embedding) - 1) <= NORM_TOLERANCE:  # so written, NaN is bad too
        raise ValueError("embedding: norm is not 1")
    return embedding


def shorten(embeddings: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
    """Cut embeddings (n, full dim) to their first `dim` numbers and scale them to norm 1 again."""
    if embeddings.shape[1] == dim:
        return embeddings
    cut = embeddings[:, :dim]
    norms = np.linalg.norm(cut, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = cut / np.maximum(norms, np.finfo(np.float32).tiny)  # one of zeros stays that
    return scaled


def normalize(vectors: NDArray[np.float32], source: str) -> None:
    """Bring vectors (n, dim) of almost norm 1 to norm 1, in place, so that a dot product is a cosine.

    Raises:
        EmbeddingError: a vector is not finite or its norm is far from 1; names the first one.
    """
    for start in range(0, len(vectors), _CHUNK_ROWS):
        chunk = vectors[start : start + _CHUNK_ROWS]
        norms = np.linalg.norm(chunk, axis=1, keepdims=True)
        bad = np.flatnonzero(~(np.abs(norms[:, 0] - 1) <= NORM_TOLERANCE))  # so written, NaN is bad too
        if len(bad):
            raise EmbeddingError(
                f"{source}: the embedding of ad {start + bad[0]}, counted from 0, has norm {norms[bad[0], 0]:.4g}"
                " where 1 is expected"
            )
        chunk /= norms
