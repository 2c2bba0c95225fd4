"""Searches with filters against an oracle that reads the feed's own lines, one ad after another."""

import math
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from index.build import BuildOptions, build_index
from index.filters import Filters, Wanted
from index.load import FrozenIndex, load_index
from tests.index.support import DIM, inputs, unit_vectors, write_feed

NOW = datetime(2026, 11, 23, 15, 30, tzinfo=UTC)
"""A Monday."""
SEGMENTS = {
    ("us", "en"): 2600,
    ("us", "es"): 90,
    ("gb", "en"): 60,
    (None, "en"): 40,
    ("us", None): 30,
    (None, None): 50,
}
CATEGORIES = ("Toys", "Toys > Puzzles", "Toys and Games", "Tools > Drills", "Tools > Saws", None)
DEVICES = (None, ["mobile"], ["Desktop", "tablet"], ["tv"])
NEGATIVES = (None, None, ["cheap"], ['"tooth brush"', "[red drill]"])
HOURS = (
    None,
    None,
    [{"days": ["mon"], "from_hour": 15, "to_hour": 16}],
    [{"days": ["tue"], "from_hour": 0, "to_hour": 24}],
)
CAMPAIGNS: list[dict[str, Any]] = [
    {"campaign_id": "c0"},
    {"campaign_id": "c1", "budget": "exhausted"},
    {"campaign_id": "c2", "status": "paused"},
    {"campaign_id": "c3", "ends_at": (NOW - timedelta(seconds=1)).isoformat()},
    {"campaign_id": "c4", "starts_at": (NOW - timedelta(seconds=1)).isoformat()},
    {"campaign_id": "c5", "negative_keywords": ["free"]},
]
"""Of c6, that ads name too, nothing is said."""


def make_ads() -> list[dict[str, Any]]:
    chance = np.random.default_rng(7)
    vectors = unit_vectors(sum(SEGMENTS.values()), DIM, seed=3)
    ads = []
    for (market, language), count in SEGMENTS.items():
        for _ in range(count):
            number = len(ads)
            ads.append(
                {
                    "ad_id": f"ad-{number}",
                    "title": "drill",
                    "embedding": vectors[number].tolist(),
                    "market": market if number % 9 or market is None else [market, "ca"],
                    "language": language,
                    "advertiser_id": [None, *"abcdefgh"][chance.integers(9)],
                    "campaign_id": [None, *(f"c{i}" for i in range(7))][chance.integers(8)],
                    "category": CATEGORIES[chance.integers(len(CATEGORIES))],
                    "devices": DEVICES[chance.integers(len(DEVICES))],
                    "bid": None if chance.random() < 0.1 else round(float(chance.random()), 3),
                    "status": "paused" if chance.random() < 0.05 else "active",
                    "negative_keywords": NEGATIVES[chance.integers(len(NEGATIVES))],
                    "hours": HOURS[chance.integers(len(HOURS))],
                    "starts_at": (NOW + timedelta(days=1)).isoformat() if chance.random() < 0.05 else None,
                }
            )
    return ads


ADS = make_ads()
VECTORS = np.array([ad["embedding"] for ad in ADS])


@pytest.fixture(scope="module")
def ad_index(tmp_path_factory) -> FrozenIndex:
    directory = tmp_path_factory.mktemp("filtered")
    feed = write_feed(directory / "feed.jsonl", ADS)
    campaigns = write_feed(directory / "campaigns.jsonl", CAMPAIGNS)
    build_index(inputs(feed, embeddings="feed", campaigns=campaigns), directory / "out", BuildOptions(k=20))
    return load_index(directory / "out")


def is_listed(value: str | None, given_places: Any) -> bool:
    """Whether an ad of some places is for this one; one that names none is for every one."""
    if value is None or given_places is None:
        return True
    places = [given_places] if isinstance(given_places, str) else given_places
    return value.lower() in [place.lower() for place in places]


def is_open(thing: dict[str, Any], offset_minutes: int) -> bool:
    if thing.get("starts_at") and datetime.fromisoformat(thing["starts_at"]) > NOW:
        return False
    if thing.get("ends_at") and datetime.fromisoformat(thing["ends_at"]) <= NOW:
        return False
    local = NOW + timedelta(minutes=offset_minutes)
    return not thing.get("hours") or any(
        local.strftime("%a").lower() in window["days"] and window["from_hour"] <= local.hour < window["to_hour"]
        for window in thing["hours"]
    )


def is_forbidden(thing: dict[str, Any], query: str) -> bool:
    for keyword in thing.get("negative_keywords") or ():
        if keyword.startswith("["):
            if query == keyword[1:-1]:
                return True
        elif f" {keyword.strip(chr(34))} " in f" {query} ":
            return True
    return False


def may_see(ad: dict[str, Any], wanted: Wanted) -> bool:
    """The rules in plain words, without cap and pass-through."""
    filters = wanted.filters
    campaign = next((one for one in CAMPAIGNS if one["campaign_id"] == ad["campaign_id"]), {})
    category = ad["category"] or ""
    barred = [name for name in filters.exclude_categories if category == name or category.startswith(f"{name} > ")]
    devices = [name.lower() for name in ad["devices"] or ()]
    return (
        ad["status"] == "active"
        and campaign.get("status") != "paused"
        and campaign.get("budget") != "exhausted"
        and all(is_open(thing, filters.utc_offset_minutes) for thing in (ad, campaign))
        and not any(is_forbidden(thing, wanted.query) for thing in (ad, campaign))
        and is_listed(filters.market, ad["market"])
        and is_listed(filters.language, ad["language"])
        and (filters.device is None or not devices or filters.device.lower() in devices)
        and ad["advertiser_id"] not in filters.exclude_advertisers
        and not barred
        and (filters.min_bid is None or (ad["bid"] is not None and ad["bid"] >= filters.min_bid - 1e-7))
    )


def truth(embedding: np.ndarray, wanted: Wanted) -> list[int]:
    """Rows by falling cosine."""
    seen: Counter[str] = Counter()
    rows = []
    for row in np.argsort(-(VECTORS @ embedding.astype(np.float64)), kind="stable").tolist():
        if not may_see(ADS[row], wanted):
            continue
        advertiser = ADS[row]["advertiser_id"]
        seen[advertiser] += 1
        if wanted.filters.max_per_advertiser and advertiser and seen[advertiser] > wanted.filters.max_per_advertiser:
            continue
        rows.append(row)
    return rows[: wanted.top_k]


filters_given = st.builds(
    Filters,
    market=st.sampled_from([None, "us", "US", "gb", "ca", "fr"]),
    language=st.sampled_from([None, "en", "es", "fr"]),
    device=st.sampled_from([None, "mobile", "Desktop", "watch"]),
    exclude_advertisers=st.frozensets(st.sampled_from("abcxyz"), max_size=3),
    exclude_categories=st.frozensets(st.sampled_from(["Toys", "Tools", "Tools > Saws", "Food"]), max_size=2),
    min_bid=st.sampled_from([None, None, 0.0, 0.5, 0.98]),
    max_per_advertiser=st.sampled_from([None, None, 1, 3]),
    utc_offset_minutes=st.sampled_from([0, 60, -600, 720]),
)
requests = st.builds(
    Wanted,
    top_k=st.sampled_from([1, 20, 200]),
    filters=filters_given,
    query=st.sampled_from(["drill", "cheap drill", "red drill", "a tooth brush", "toothbrush", "free drill now"]),
    at=st.just(NOW.timestamp()),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanted=st.lists(requests, min_size=1, max_size=5), seed=st.integers(0, 50))
def test_what_is_found_is_what_each_request_may_see(ad_index: FrozenIndex, wanted: list[Wanted], seed: int):
    embeddings = unit_vectors(len(wanted), DIM, seed=100 + seed)
    exact = ad_index.exact_search(embeddings, wanted)
    for embedding, one, hits, best in zip(embeddings, wanted, ad_index.search(embeddings, wanted), exact, strict=True):
        expected = truth(embedding, one)
        assert best.rows.tolist() == expected
        assert all(may_see(ADS[row], one) for row in hits.rows.tolist())
        assert len(hits.rows) == len(set(hits.rows.tolist())) == len(expected)
        assert hits.short == (None if len(expected) == one.top_k else "filtered")
        if one.top_k > 1:
            assert len(set(hits.rows.tolist()) & set(expected)) >= 0.7 * len(expected)
        assert hits.scores == pytest.approx(VECTORS[hits.rows] @ embedding, abs=1e-5)


def test_recall_with_filters_is_that_of_the_unfiltered_search(ad_index: FrozenIndex):
    embeddings = unit_vectors(200, DIM, seed=9)
    for filters in (Filters(), Filters(min_bid=0.5), Filters(min_bid=0.9), Filters(device="mobile", market="us")):
        wanted = [Wanted(20, filters, at=NOW.timestamp())] * 200
        found = ad_index.search(embeddings, wanted)
        shares = [
            len(set(hits.rows.tolist()) & set(truth(embedding, wanted[0]))) / 20
            for hits, embedding in zip(found, embeddings, strict=True)
        ]
        assert np.mean(shares) >= 0.95, filters


def test_an_ad_that_is_paused_is_found_no_more_and_one_that_is_resumed_again(ad_index: FrozenIndex):
    embedding, wanted = VECTORS[2:3].astype(np.float32), Wanted(5, at=NOW.timestamp())
    columns, shown = ad_index.eligibility, truth(VECTORS[2], wanted)
    columns.set_active(shown[0], active=False)
    try:
        [hits] = ad_index.search(embedding, [wanted])
        assert shown[0] not in hits.rows
        assert len(hits.rows) == 5
    finally:
        columns.set_active(shown[0], active=True)
    [hits] = ad_index.search(embedding, [wanted])
    assert hits.rows[0] == shown[0]


def test_earlier_hits_lose_what_may_not_be_shown_any_more(ad_index: FrozenIndex):
    wanted = Wanted(10, at=NOW.timestamp())
    [hits] = ad_index.search(VECTORS[5:6].astype(np.float32), [wanted])
    gone = int(hits.rows[3])
    ad_index.eligibility.set_active(gone, active=False)
    try:
        left = ad_index.still_eligible(hits, wanted)
    finally:
        ad_index.eligibility.set_active(gone, active=True)
    assert left.rows.tolist() == [row for row in hits.rows.tolist() if row != gone]
    assert math.isclose(left.scores[0], hits.scores[0])
    assert len(ad_index.still_eligible(hits, Wanted(10, Filters(min_bid=2.0), at=wanted.at)).rows) == 0


def test_equal_requests_of_a_batch_are_answered_as_if_alone(ad_index: FrozenIndex):
    embeddings = unit_vectors(6, DIM, seed=4)
    wanted = [
        Wanted(20, Filters(market="gb", min_bid=0.2), query, at=NOW.timestamp()) for query in ("drill", "cheap") * 3
    ]
    together = ad_index.search(embeddings, wanted)
    for position, hits in enumerate(together):
        [alone] = ad_index.search(embeddings[position : position + 1], [wanted[position]])
        assert hits.rows.tolist() == alone.rows.tolist()


def test_a_campaign_takes_part_in_its_share_of_the_requests_and_in_the_same_ones_again(ad_index: FrozenIndex):
    from index.targeting import Campaign

    embedding = VECTORS[8:9].astype(np.float32)
    plain = Wanted(200, at=NOW.timestamp())
    wanted = [Wanted(200, request_id=f"r-{number}", at=plain.at) for number in range(300)]
    ad_index.eligibility.set_campaign(Campaign(campaign_id="c6", pass_through_rate=0.25))
    try:
        found = ad_index.search(embedding.repeat(300, axis=0), wanted)
        again = ad_index.search(embedding, wanted[:1])[0]
    finally:
        ad_index.eligibility.set_campaign(Campaign(campaign_id="c6"))
    takes_part = []
    for hits in found:
        assert len(hits.rows) == 200
        assert not hits.for_others
        takes_part.append(any(ADS[row]["campaign_id"] == "c6" for row in hits.rows.tolist()))
    assert np.mean(takes_part) == pytest.approx(0.25, abs=0.08)
    assert again.rows.tolist() == found[0].rows.tolist()
