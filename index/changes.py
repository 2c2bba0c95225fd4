"""Changes of ads and campaigns: as their callers write them, and what is true after them.

    line or body ──> Change ──record──> State, with a sequence number ──> the index in memory

A state says all that is true of one ad or campaign, so the last one of each is enough, and one that comes twice does
no harm.
"""

from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from index.ad_document import write_ad
from index.feed import FeedAd
from index.lines import parse_line
from index.targeting import Campaign, CampaignTerms
from index.vectors import normalize, parse_embedding


class AdPatch(BaseModel):
    """What can be changed of an ad without writing it anew; a field that is left out stays as it is."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    status: str | None = None
    bid: Annotated[float, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        _check_not_empty(self)
        return self


class CampaignPatch(CampaignTerms):
    """What can be changed of a campaign; a field that is left out stays as it is."""

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        _check_not_empty(self)
        return self


@dataclass(frozen=True, slots=True)
class Upsert:
    """Write an ad anew, whether there is one of its id or not."""

    ad: FeedAd
    """Without its embedding."""
    embedding: NDArray[np.float32]
    """Of norm 1, shape (dim,)."""
    embedded_by: str | None = None
    """Model version of the encoder that made the embedding; None where it came with the ad."""


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove an ad, if there is one."""

    ad_id: str


@dataclass(frozen=True, slots=True)
class PatchAd:
    """Change an ad that there is."""

    ad_id: str
    patch: AdPatch


@dataclass(frozen=True, slots=True)
class PatchCampaign:
    """Change a campaign, which need not have been described before."""

    campaign_id: str
    patch: CampaignPatch


Change = Upsert | Delete | PatchAd | PatchCampaign


@dataclass(frozen=True, slots=True)
class AdState:
    """What is true of an ad."""

    sequence: int
    """Of its last change; rises from change to change."""
    ad_id: str
    ad: FeedAd | None
    """Without its embedding; None where it was deleted."""
    embedding: NDArray[np.float32] | None
    """Of norm 1, shape (dim,). None where it was deleted, and where nothing but status and bid has changed."""


@dataclass(frozen=True, slots=True)
class CampaignState:
    """What is true of a campaign."""

    sequence: int
    campaign: Campaign


State = AdState | CampaignState


def parse_upsert(line: bytes, dim: int) -> tuple[FeedAd, NDArray[np.float32] | None]:
    """Read one line of ads to write: the ad, and its embedding (dim,) of norm 1 where it brings one.

    Raises:
        ValueError: saying what is wrong with the line, in few distinct words.
    """
    ad = parse_line(line, FeedAd)
    try:
        write_ad(ad)
    except TypeError:  # a level deeper than in the line, where unknown fields become attributes
        raise ValueError("nested too deeply") from None
    if ad.embedding is None:
        return ad, None
    embedding = parse_embedding(ad.embedding, dim)
    normalize(embedding[np.newaxis], ad.ad_id)
    return ad.model_copy(update={"embedding": None}), embedding


def patched(ad: FeedAd, patch: AdPatch) -> FeedAd:
    """The ad after the patch."""
    return ad.model_copy(update=_given(patch))


def patched_campaign(campaign: Campaign, patch: CampaignPatch) -> Campaign:
    """The campaign after the patch."""
    return campaign.model_copy(update=_given(patch))


def _given(patch: BaseModel) -> dict[str, object]:
    return {name: getattr(patch, name) for name in patch.model_fields_set}


def _check_not_empty(patch: BaseModel) -> None:
    if not patch.model_fields_set:
        raise ValueError(f"changes nothing; expected one of {', '.join(type(patch).model_fields)}")
