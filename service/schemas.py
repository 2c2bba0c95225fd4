"""The wire: what `/retrieve` takes and gives."""

import re
import unicodedata
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from index.ads import FieldName

_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")
"""Control characters other than white space, of which U+0085 is one."""


MAX_QUERY_CHARACTERS = 512


def _check_query(text: str) -> str:
    found = _CONTROL.search(text)
    if found:
        raise ValueError(f"must not contain control characters (found U+{ord(found.group()):04X})")
    if len(unicodedata.normalize("NFKC", text)) > MAX_QUERY_CHARACTERS:  # one character can become eighteen
        raise ValueError(f"must have at most {MAX_QUERY_CHARACTERS} characters after NFKC normalisation")
    return text


class RetrieveRequest(BaseModel):
    """A query and how many ads it wants."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"query": "cordless drill 18v", "top_k": 10, "fields": ["title"]}]},
    )

    query: Annotated[
        str,
        StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_QUERY_CHARACTERS),
        AfterValidator(_check_query),
    ] = Field(description="What the user typed; 1 to 512 characters after trimming and NFKC normalisation.")
    top_k: int = Field(100, ge=1, le=1_000, description="Most ads wanted.")
    timeout_ms: int | None = Field(
        None, ge=1, le=10_000, description="Time budget from arrival to answer; by default the server's."
    )
    request_id: Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[\x21-\x7e]+$")] | None = (
        Field(None, description="Comes back in the answer; made up where absent.")
    )
    fields: list[FieldName] = Field(default=[], max_length=16, description="Ad fields to return beside id and score.")
    no_log: bool = Field(False, description="Keep this request out of the request log.")


class ScoredAd(BaseModel):
    """One ad of the answer, with the fields that were asked for."""

    model_config = ConfigDict(extra="allow")

    ad_id: str
    score: float = Field(description="Cosine of query and ad in the embedding space.")


class Coverage(BaseModel):
    """Whether the answer is all that was asked for."""

    complete: bool
    reason: Literal["index_smaller_than_top_k"] | None


class Timings(BaseModel):
    """Milliseconds of each stage; encode and search are those of the request's whole batch."""

    tokenize: float
    queue: float
    encode: float
    search: float
    total: float


class RetrieveResponse(BaseModel):
    """Ads in falling score, and what made them."""

    request_id: str
    release: str
    model_version: str
    index_version: str
    ads: list[ScoredAd]
    coverage: Coverage
    cached: bool
    timings_ms: Timings


class Problem(BaseModel):
    """An RFC 9457 problem document."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="Stable name of the problem, to branch on.")
    title: str
    status: int
    detail: str
    errors: list[dict[str, Any]] | None = Field(None, description="Each wrong field, with 422.")
