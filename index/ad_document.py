"""Ads and campaigns as the record keeps them: JSON documents, less what was left out, and the embedding beside."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from index.ad_schedule import Schedule, fields_of
from index.ads import FIELD_NAMES
from index.feed import FeedAd
from index.keywords import normalized
from index.targeting import Campaign

_PATCHED = ("status", "bid")
"""What an `AdPatch` can change."""
_NOTHING: tuple[object, ...] = (None, "", [], {})
"""Values that stand for a field that was left out."""


def write_ad(ad: FeedAd) -> bytes:
    """The document of an ad; those of ads that say the same are equal, however they were written.

    Raises:
        TypeError: its attributes are nested too deeply.
    """
    keywords = normalized(ad.negative_keywords or ())
    return write_fields(ad.ad_id, ad.columns() | {"status": ad.status}, ad.schedule, keywords)


def write_fields(ad_id: str, columns: dict[str, Any], schedule: Schedule, keywords: Sequence[str]) -> bytes:
    """The document of an ad of some columns, as `FeedAd.columns` or an `AdTable` gives them, and a status.

    Args:
        ad_id: its id.
        columns: a field that is None or empty is left out.
        schedule: when it is shown.
        keywords: its negative keywords, `normalized`.
    """
    fields: dict[str, object] = {name: columns.get(name) for name in FIELD_NAMES}
    fields |= {"ad_id": ad_id, "negative_keywords": keywords, **fields_of(schedule)}
    given = {name: value for name, value in fields.items() if value not in _NOTHING}
    if columns["status"] is not None:  # an empty one keeps an ad from being shown, and none does not
        given["status"] = columns["status"]
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
