"""Ad feeds: what a line of one may say."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from artifacts.manifest import FeedReport
from index.lines import LineReader
from index.routing import SegmentKey, keys_of
from index.targeting import Scheduled

MAX_PLACES = 64
"""Markets, and languages, of one ad; it is in memory once for each pair."""


Place = Annotated[str, Field(pattern=r"^[A-Za-z0-9]+([-_][A-Za-z0-9]+)*$", max_length=32)]
"""A market or a language: `us`, `pt-BR`."""


def _listed(value: object) -> object:
    """A feed may name one place, several, or none, which stands for any."""
    if isinstance(value, str):
        return [value.strip()] if value.strip() else None
    return value


Places = Annotated[Annotated[list[Place], Field(max_length=MAX_PLACES)] | None, BeforeValidator(_listed)]


class FeedAd(Scheduled):
    """One line of a feed. Text is taken without surrounding white space, and empty text is no text."""

    model_config = ConfigDict(extra="allow", strict=True, str_strip_whitespace=True, allow_inf_nan=False)

    ad_id: Annotated[str, Field(min_length=1, max_length=256)]
    title: Annotated[str, Field(min_length=1)]
    description: str | None = None
    advertiser_id: str | None = None
    campaign_id: str | None = None
    category: str | None = None
    market: Places = None
    language: Places = None
    devices: list[str] | None = None
    bid: Annotated[float, Field(ge=0)] | None = None
    landing_url: str | None = None
    attrs: dict[str, Any] | None = None
    embedding: list[float] | None = None

    @model_validator(mode="before")
    @classmethod
    def _brand_is_advertiser(cls, line: dict[str, Any]) -> dict[str, Any]:
        """Shop data names a brand where an ad feed names its advertiser."""
        if "brand" in line and not line.get("advertiser_id"):
            line["advertiser_id"] = line.pop("brand")
        return line

    @property
    def segment_keys(self) -> list[SegmentKey]:
        """The segments that it is in: its markets × its languages."""
        return keys_of(self.market, self.language)

    def columns(self) -> dict[str, Any]:
        """What the index keeps beside the id; fields it does not know are kept as attributes."""
        return {
            **self.__dict__,
            "market": _as_given(self.market),
            "language": _as_given(self.language),
            "attrs": {**(self.__pydantic_extra__ or {}), **(self.attrs or {})},
        }


def _as_given(names: list[str] | None) -> list[str] | str | None:
    return names[0] if names and len(names) == 1 else names


class FeedReader(LineReader[FeedAd]):
    """Iterates once over the usable ads of a feed, reporting and counting the lines it leaves out."""

    def __init__(self, path: Path, *, strict: bool = False) -> None:
        """Prepare to read; see `LineReader`."""
        super().__init__(path, FeedAd, "ad_id", strict=strict)

    def report(self, *, sha256: str, not_active: int) -> FeedReport:
        """What was read, for the manifest."""
        return FeedReport(
            name=self._path.name,
            sha256=sha256,
            lines=self.line_count,
            ads=self.line_count - self.bad_count,
            not_active=not_active,
            skipped=dict(self.skipped.most_common()),
        )
