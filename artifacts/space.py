"""The embedding-space contract: what must agree before two embeddings may be compared."""

import hashlib
import json
from typing import Self

from pydantic import BaseModel, ConfigDict, model_validator


class EmbeddingSpace(BaseModel):
    """Everything that decides where a text lands, shared by all students of one teacher.

    An encoder serves an index only if both carry the same `space_id`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    teacher: str
    """Name of the model whose embeddings the ads have, for example `all-MiniLM-L6-v2`."""
    revision: str
    """What pins the teacher's weights: a hub commit, or `sha256:` and the hash of a local checkpoint."""
    dim: int
    """Length of an embedding."""
    pooling: str
    """How token vectors become one: `mean`, `cls`, `lasttoken`, …"""
    normalized: bool
    """Whether embeddings have L2 norm 1, so that a dot product is a cosine."""
    query_prompt: str = ""
    """Text put before every query."""
    ad_prompt: str = ""
    """Text put before every ad."""
    matryoshka_dims: tuple[int, ...] = ()
    """Shorter lengths, rising, to which embeddings may be cut and scaled to norm 1 again, because the teacher was
    trained for that (arXiv 2205.13147)."""

    @model_validator(mode="after")
    def _check_matryoshka_dims(self) -> Self:
        dims = self.matryoshka_dims
        if list(dims) != sorted(set(dims)) or not all(0 < dim < self.dim for dim in dims):
            raise ValueError(f"matryoshka_dims {list(dims)}: expected rising lengths below dim {self.dim}")
        return self

    @property
    def space_id(self) -> str:
        """Sixteen hex digits that are equal exactly when embeddings are comparable."""
        # A hash of the weights names them by itself; the teacher's name, often a folder's, is then a label.
        left_out = {"teacher"} if self.revision.startswith("sha256:") else set()
        if not self.matryoshka_dims:
            left_out.add("matryoshka_dims")  # spaces from before there were any keep their ids
        fields = self.model_dump(exclude=left_out)
        canonical = json.dumps(fields, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]
