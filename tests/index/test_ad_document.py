"""Documents of ads: what is read is what was written, and what says the same is written alike."""

import contextlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.ad_document import read_ad, write_ad
from index.ad_schedule import DAYS
from index.changes import parse_upsert
from index.feed import FeedAd
from index.keywords import KeywordLists
from tests.index.support import DIM

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
PLACES = st.sampled_from(["us", "de", "pt-BR", "any"])
INSTANTS = st.datetimes(datetime(1970, 1, 2), datetime(9998, 12, 30), timezones=st.just(UTC))
WINDOWS = st.builds(
    lambda days, start, length: {"days": days, "from_hour": start, "to_hour": min(24, start + length)},
    st.lists(st.sampled_from(DAYS), min_size=1),
    st.integers(0, 23),
    st.integers(1, 24),
)
JSON = st.recursive(st.none() | st.booleans() | st.integers(-5, 5) | TEXT, lambda inner: st.lists(inner, max_size=2))
ADS = st.fixed_dictionaries(
    {"ad_id": st.sampled_from(["a", "b/ü"]), "title": st.sampled_from(["Drill", " Saw "])},
    optional={
        "description": TEXT,
        "brand": TEXT,
        "campaign_id": TEXT,
        "category": TEXT,
        "market": st.none() | PLACES | st.lists(PLACES, max_size=3),
        "language": st.none() | PLACES | st.lists(PLACES, max_size=3),
        "devices": st.none() | st.lists(st.sampled_from(["mobile", "desktop", ""]), max_size=2),
        "bid": st.none() | st.floats(0, 1e9),
        "status": st.none() | st.sampled_from(["", "active", "Active", "paused"]),
        "landing_url": TEXT,
        "attrs": st.none() | st.dictionaries(TEXT, JSON, max_size=2),
        "colour": JSON,
        "starts_at": st.none() | INSTANTS.map(datetime.isoformat),
        "ends_at": st.none() | INSTANTS.map(datetime.isoformat),
        "hours": st.none() | st.lists(WINDOWS, max_size=3),
        "negative_keywords": st.none() | st.lists(st.sampled_from(["free", "[Free!]", "second hand"]), max_size=3),
    },
)


def meaning(ad: FeedAd) -> tuple[Any, ...]:
    """What the index takes of an ad, none and empty being one."""
    columns = {
        name: value or None for name, value in ad.columns().items() if name not in ("hours", "negative_keywords")
    }
    for name in ("starts_at", "ends_at", "bid"):
        columns.pop(name, None)
    lists = KeywordLists()
    lists.number_of(ad.negative_keywords or ())
    return columns, ad.bid, ad.is_active, ad.schedule, ad.segment_keys, lists.texts()


@given(fields=ADS)
def test_what_is_read_means_what_was_written(fields: dict[str, Any]):
    ad = FeedAd.model_validate(json.loads(json.dumps(fields)))
    document = write_ad(ad)
    again = read_ad(document)
    assert meaning(again) == meaning(ad)
    assert again.status == ad.status
    assert write_ad(again) == document


def test_what_says_the_same_is_written_alike():
    common = {"ad_id": "a", "title": "Drill"}
    one = common | {
        "market": "us",
        "starts_at": "2026-12-01T09:00:00+09:00",
        "hours": [
            {"days": ["tue", "mon"], "from_hour": 8, "to_hour": 12},
            {"days": ["mon"], "from_hour": 12, "to_hour": 14},
        ],
        "negative_keywords": ["Free!", "[second hand]"],
        "colour": "red",
        "devices": [],
    }
    other = common | {
        "market": ["us"],
        "starts_at": "2026-12-01T00:00:00Z",
        "hours": [{"days": ["mon"], "from_hour": 8, "to_hour": 14}, {"days": ["tue"], "from_hour": 8, "to_hour": 12}],
        "negative_keywords": ['"free"', "[second hand]", "free"],
        "attrs": {"colour": "red"},
        "description": " ",
    }
    assert write_ad(FeedAd.model_validate(one)) == write_ad(FeedAd.model_validate(other))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"starts_at": "0001-01-01T00:00:00+14:00"}, "starts_at: "),
        ({"ends_at": "9999-12-31T23:59:59-14:00"}, "ends_at: "),
        ({"starts_at": "2026-12-01T00:00:00"}, "starts_at: "),
    ],
)
def test_a_moment_that_no_document_can_hold_is_a_fault_of_its_line(fields: dict[str, Any], reason: str):
    with pytest.raises(ValueError, match=reason):
        parse_upsert(json.dumps({"ad_id": "a", "title": "Drill"} | fields).encode(), DIM)


def test_nesting_is_bounded_before_an_ad_is_recorded():
    depths = [depth for depth in range(240, 260) if parses(depth)]
    assert depths
    assert not parses(max(depths) + 1)


def parses(depth: int) -> bool:
    line = b'{"ad_id": "a", "title": "t", "k": ' + b"[" * depth + b"]" * depth + b"}"
    with contextlib.suppress(ValueError):
        write_ad(parse_upsert(line, DIM)[0])
        return True
    return False
