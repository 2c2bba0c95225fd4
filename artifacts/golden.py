"""Golden queries: what an encoder's PyTorch original makes of some queries, so that any machine can check its copy."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from artifacts.store import ArtifactError

QUERIES_NAME = "golden_queries.json"
EMBEDDINGS_NAME = "golden_embeddings.npy"


@dataclass(frozen=True, slots=True)
class Golden:
    """Queries and the embeddings to expect of them."""

    queries: list[str]
    embeddings: NDArray[np.float32]
    """By the original in fp32, L2-normalised, shape (n, dim)."""


def save_golden(directory: Path, golden: Golden) -> None:
    """Write both files into an artifact that is being staged."""
    text = json.dumps(golden.queries, ensure_ascii=False, indent=1)
    (directory / QUERIES_NAME).write_text(f"{text}\n", encoding="utf-8")
    np.save(directory / EMBEDDINGS_NAME, golden.embeddings)


def load_golden(directory: Path, dim: int) -> Golden:
    """Read both files of an artifact whose hashes were checked and whose embeddings have length `dim`.

    Raises:
        ArtifactError: they are missing, or are not a list of queries and an embedding for each.
    """
    path = directory / QUERIES_NAME
    if not path.is_file():
        raise ArtifactError(
            f"{path}: missing, so nothing says what this encoder should answer; it was exported by an older version:"
            " run `hlm export` again"
        )
    try:
        queries = json.loads(path.read_bytes())
        embeddings = np.load(directory / EMBEDDINGS_NAME)
    except (OSError, ValueError, EOFError) as error:
        raise ArtifactError(f"{directory}: golden queries and their embeddings cannot be read: {error}") from error
    if not isinstance(queries, list) or not queries or not all(isinstance(query, str) for query in queries):
        raise ArtifactError(f"{path}: not a list of queries")
    expected = (len(queries), dim)
    if embeddings.dtype != np.float32 or embeddings.shape != expected:
        raise ArtifactError(
            f"{directory / EMBEDDINGS_NAME}: holds {embeddings.dtype} of shape {embeddings.shape} where float32 of"
            f" shape {expected} is expected"
        )
    return Golden(queries, embeddings)
