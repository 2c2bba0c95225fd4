"""What decides whether an ad may be shown, as feeds and updates write it."""

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from index.ad_schedule import Schedule, Window, schedule_of
from index.keywords import parse_keyword

ACTIVE = "active"
MAX_NEGATIVE_KEYWORDS = 20_000
"""A campaign's or an ad group's limit at Microsoft Advertising."""


def _check_keyword(text: str) -> str:
    parse_keyword(text)
    return text


NegativeKeyword = Annotated[str, Field(max_length=512), AfterValidator(_check_keyword)]
Instant = Annotated[
    AwareDatetime, Field(strict=False, ge=datetime(1970, 1, 1, tzinfo=UTC), lt=datetime(9999, 1, 1, tzinfo=UTC))
]
"""RFC 3339 with an offset; JSON has no type for it. Within bounds in which it can be written in UTC."""
NegativeKeywords = Annotated[list[NegativeKeyword], Field(max_length=MAX_NEGATIVE_KEYWORDS)]


class Scheduled(BaseModel):
    """What ads and campaigns have in common: a status, a time, and queries they stay away from."""

    status: str | None = None
    """Shown only while it is `active`, which none at all stands for."""
    starts_at: Instant | None = None
    ends_at: Instant | None = None
    hours: list[Window] | None = None
    """In the searcher's local time; none stands for always."""
    negative_keywords: NegativeKeywords | None = None

    @property
    def is_active(self) -> bool:
        """Whether its status lets it be shown."""
        return self.status is None or self.status.lower() == ACTIVE

    @property
    def schedule(self) -> Schedule:
        """When it is shown."""
        return schedule_of(self.starts_at, self.ends_at, self.hours)


class CampaignTerms(Scheduled):
    """What a campaign says for all of its ads."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    budget: Literal["available", "exhausted"] = "available"
    pass_through_rate: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of the requests that its ads take part in, by a hash of request id and campaign."""

    @property
    def is_servable(self) -> bool:
        """Whether its ads may be shown at all."""
        return self.is_active and self.budget == "available"


class Campaign(CampaignTerms):
    """A campaign; of one that nobody has described, everything is allowed."""

    campaign_id: Annotated[str, Field(min_length=1, max_length=256)]
