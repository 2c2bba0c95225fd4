"""The embedding-space contract: what must agree before two embeddings may be compared."""

import hashlib
import json

from pydantic import BaseModel, ConfigDict


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

    @property
    def space_id(self) -> str:
        """Sixteen hex digits that are equal exactly when embeddings are comparable."""
        # A hash of the weights names them by itself; the teacher's name, often a folder's, is then a label.
        label = {"teacher"} if self.revision.startswith("sha256:") else set()
        canonical = json.dumps(self.model_dump(exclude=label), sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]
