"""Made-up ads with targeting of every kind, requests for them, and what each may see, worked out ad by ad."""

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from hypothesis import strategies as st

from benchmarks.eligible import drawn
from index.filters import Filters, Wanted
from tests.index.support import DIM, unit_vectors

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
NO_RATES: Mapping[str, float] = {}


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


def takes_part(ad: dict[str, Any], wanted: Wanted, rates: Mapping[str, float]) -> bool:
    """Whether a campaign with a pass-through rate takes part in a request."""
    campaign = ad["campaign_id"]
    return campaign not in rates or drawn(wanted.request_id, campaign) < rates[campaign]


def truth(embedding: np.ndarray, wanted: Wanted, rates: Mapping[str, float] = NO_RATES) -> list[int]:
    """Rows by falling cosine; `rates` are the pass-through rates of campaigns."""
    seen: Counter[str] = Counter()
    rows = []
    for row in np.argsort(-(VECTORS @ embedding.astype(np.float64)), kind="stable").tolist():
        if not (may_see(ADS[row], wanted) and takes_part(ADS[row], wanted, rates)):
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
