"""Filters of a request: what is accepted, and what the index is asked for."""

import json

import pytest

from index.filters import NO_FILTERS, Filters
from service.errors import InvalidRequestError
from service.schemas import OfflineRequest, RetrieveRequest
from service.validation import parse_body


def parse(filters: object) -> RetrieveRequest:
    return parse_body(RetrieveRequest, json.dumps({"query": "drill", "filters": filters}).encode())


def test_the_index_is_asked_for_what_the_request_says():
    request = parse(
        {
            "market": "us",
            "language": "en",
            "device": "mobile",
            "exclude_advertisers": ["a", "b", "a"],
            "exclude_categories": ["Toys"],
            "min_bid": 0.2,
            "max_per_advertiser": 3,
            "utc_offset_minutes": -480,
        }
    )
    wanted = request.wanted("r-1")
    assert wanted.filters == Filters(
        "us", "en", "mobile", frozenset({"a", "b"}), frozenset({"Toys"}), 0.2, 3, utc_offset_minutes=-480
    )
    assert (wanted.top_k, wanted.query, wanted.request_id, wanted.effort) == (100, "drill", "r-1", 1.0)
    assert wanted.at > 1_700_000_000


@pytest.mark.parametrize("filters", [None, {}])
def test_none_at_all_exclude_nothing(filters: object):
    assert parse(filters).wanted("r").filters == NO_FILTERS


@pytest.mark.parametrize(
    ("filters", "field"),
    [
        ({"markets": "us"}, "filters.markets"),
        ({"market": ""}, "filters.market"),
        ({"min_bid": -1}, "filters.min_bid"),
        ({"min_bid": "0.2"}, "filters.min_bid"),
        ({"max_per_advertiser": 0}, "filters.max_per_advertiser"),
        ({"exclude_advertisers": [str(i) for i in range(1001)]}, "filters.exclude_advertisers"),
        ({"exclude_categories": "Toys"}, "filters.exclude_categories"),
        ({"utc_offset_minutes": 1441}, "filters.utc_offset_minutes"),
        ([], "filters"),
    ],
    ids=str,
)
def test_a_wrong_filter_is_refused_and_named(filters: object, field: str):
    with pytest.raises(InvalidRequestError) as refusal:
        parse(filters)
    assert [error["field"] for error in refusal.value.details()["errors"]] == [field]


def test_many_queries_take_the_same_filters():
    body = json.dumps({"queries": ["drill"], "filters": {"market": "us"}}).encode()
    request = parse_body(OfflineRequest, body)
    assert request.filters is not None
    assert request.filters.parsed() == Filters(market="us")
