"""The wire: what `/retrieve` takes and gives."""

import re
import time
import unicodedata
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema

from index.ads import FieldName
from index.filters import NO_FILTERS, Filters, Wanted
from service.admission import StepName

_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")
"""Control characters other than white space, of which U+0085 is one."""


MAX_QUERY_CHARACTERS = 512


def _check_query(text: str) -> str:
    found = _CONTROL.search(text)
    if found:
        raise ValueError(f"must not contain control characters (found U+{ord(found.group()):04X})")
    if (
        not text.isascii() and len(unicodedata.normalize("NFKC", text)) > MAX_QUERY_CHARACTERS
    ):  # one character can become eighteen
        raise ValueError(f"must have at most {MAX_QUERY_CHARACTERS} characters after NFKC normalisation")
    return text


Query = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_QUERY_CHARACTERS),
    AfterValidator(_check_query),
    Field(description="What the user typed; 1 to 512 characters after trimming and NFKC normalisation."),
]
TopK = Annotated[int, Field(ge=1, le=1_000, description="Most ads wanted.")]
RequestId = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[\x21-\x7e]+$")]
Fields = Annotated[list[FieldName], Field(max_length=16, description="Ad fields to return beside id and score.")]


MAX_TIMEOUT_MS = 10_000
MAX_EXCLUDED = 1_000
Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Place = Annotated[str, StringConstraints(min_length=1, max_length=32)]
Names = Annotated[list[Name], Field(max_length=MAX_EXCLUDED)]
DAY_MINUTES = 1_440


class RequestFilters(BaseModel):
    """Which ads a request can use; what is absent excludes none."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    market: Place | None = Field(None, description="Ads of this market, and ads that name none.")
    language: Place | None = Field(None, description="Ads in this language, and ads that name none.")
    device: Name | None = Field(None, description="Ads for this device, and ads for all.")
    exclude_advertisers: Names = Field([], description="By `advertiser_id`; at most 1,000.")
    exclude_categories: Names = Field([], description="Each with all categories below it; at most 1,000.")
    min_bid: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="Least bid; an ad without one does not reach it."
    )
    max_per_advertiser: int | None = Field(
        None, ge=1, le=1_000, description="Most ads of one advertiser; an ad without advertiser counts alone."
    )
    utc_offset_minutes: int = Field(
        0, ge=-DAY_MINUTES, le=DAY_MINUTES, description="The searcher's clock ahead of UTC, for the ads' hours."
    )

    def parsed(self) -> Filters:
        """As the index takes them."""
        values = dict(self)
        for name in ("exclude_advertisers", "exclude_categories"):
            values[name] = frozenset(values[name])
        return Filters(**values)


class RetrieveRequest(BaseModel):
    """A query and how many ads it wants."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"query": "cordless drill 18v", "top_k": 10, "fields": ["title"]}]},
    )

    query: Query
    top_k: TopK = 100
    timeout_ms: int | None = Field(
        None, ge=1, le=MAX_TIMEOUT_MS, description="Time budget from arrival to answer; by default the server's."
    )
    request_id: RequestId | None = Field(None, description="Comes back in the answer; made up where absent.")
    fields: Fields = []
    filters: RequestFilters | None = None
    no_log: bool = Field(False, description="Keep this request out of the request log.")

    def wanted(self, request_id: str) -> Wanted:
        """What the index is asked for, now."""
        filters = self.filters.parsed() if self.filters else NO_FILTERS
        return Wanted(self.top_k, filters, self.query, request_id, at=time.time())


MAX_QUERIES = 1_000


class OfflineQuery(BaseModel):
    """One of many queries."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    query: Query
    request_id: RequestId | None = Field(None, description="Comes back in its line; made up where absent.")


_UncheckedQuery = Annotated[Any, WithJsonSchema({"anyOf": [{"type": "string"}, OfflineQuery.model_json_schema()]})]
"""Checked one by one, later: a thousand at once would hold up the requests beside them."""


class OfflineRequest(BaseModel):
    """Many queries of a caller who can wait, and what is wanted for each."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"queries": ["cordless drill 18v", {"query": "mouse"}], "top_k": 10}]},
    )

    queries: list[_UncheckedQuery] = Field(
        min_length=1,
        max_length=MAX_QUERIES,
        description="Each a query or an object; one that is wrong gets a problem for its line and harms no other.",
    )
    top_k: TopK = 100
    fields: Fields = []
    filters: RequestFilters | None = None
    timeout_ms: int | None = Field(
        None, ge=1, le=3_600_000, description="Time budget for all of it, from arrival to last line; by default none."
    )


class ScoredAd(BaseModel):
    """One ad of the answer, with the fields that were asked for."""

    model_config = ConfigDict(extra="allow")

    ad_id: str
    score: float = Field(description="Cosine of query and ad in the embedding space.")


class Coverage(BaseModel):
    """Whether the answer is all that was asked for."""

    complete: bool
    reason: Literal["filtered", "index_smaller_than_top_k", "degraded"] | None
    degraded: list[StepName] = Field(description="How the answer was made cheaper under pressure.")


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
    request_id: str | None = Field(None, description="That of the answer, where the request could be read.")
    errors: list[dict[str, Any]] | None = Field(None, description="Each wrong field, with 422.")


def inline_schema(model: type[BaseModel]) -> dict[str, Any]:
    """A model's JSON schema with all it refers to written out, so that it can stand anywhere in an OpenAPI page."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def inlined(part: Any) -> Any:
        if isinstance(part, list):
            return [inlined(one) for one in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            return inlined(definitions[part["$ref"].rpartition("/")[2]])
        return {name: inlined(value) for name, value in part.items()}

    written_out: dict[str, Any] = inlined(schema)
    return written_out
