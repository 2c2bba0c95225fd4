"""Ads and campaigns as the record keeps them: JSON documents, less what was left out, and the embedding beside."""

from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from index.feed import FeedAd
from index.targeting import Campaign

_PATCHED = ("status", "bid")
"""What an `AdPatch` can change."""


def write_ad(ad: FeedAd) -> bytes:
    """The document of an ad; equal ads have equal ones."""
    fields = ad.model_dump(mode="json", exclude={"embedding", *(ad.__pydantic_extra__ or {})}, exclude_none=True)
    attrs = {**(ad.__pydantic_extra__ or {}), **(ad.attrs or {})}  # as `FeedAd.columns` has them
    return write_fields(fields | {"attrs": attrs})


def write_fields(fields: dict[str, Any]) -> bytes:
    """The document of an ad whose fields are given as JSON has them; None and empty stand for left out."""
    given = {name: value for name, value in fields.items() if value is not None and value not in ({}, [], "")}
    return orjson.dumps(given, option=orjson.OPT_SORT_KEYS)


def read_ad(document: bytes) -> FeedAd:
    """The ad of a document."""
    return FeedAd.model_validate_json(document)


def content(document: bytes) -> dict[str, Any]:
    """What an `AdPatch` cannot change of an ad."""
    fields: dict[str, Any] = orjson.loads(document)
    for name in _PATCHED:
        fields.pop(name, None)
    return fields


def write_campaign(campaign: Campaign) -> bytes:
    """The document of a campaign."""
    return campaign.model_dump_json(exclude_none=True).encode()


def read_campaign(document: bytes) -> Campaign:
    """The campaign of a document."""
    return Campaign.model_validate_json(document)


def read_embedding(stored: bytes) -> NDArray[np.float32]:
    """The embedding, shape (dim,), of the bytes that the record has of it."""
    return np.frombuffer(stored, dtype=np.float32)
