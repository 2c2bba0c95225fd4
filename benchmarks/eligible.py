"""Made-up targeting for real ads, and an oracle: which of them a request may get, in plain Python and ad by ad."""

import hashlib
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from index.filters import Filters, Wanted

NOW = datetime(2026, 11, 23, 15, 30, tzinfo=UTC)
"""A Monday; all requests are asked then."""
MARKETS = {"us": ["en", "es"], "gb": ["en"], "de": ["de"], "ca": ["en", "fr"]}
DEVICES = (None, None, ["mobile"], ["desktop", "tablet"], ["mobile", "tablet"])
NEGATIVES = (None, None, None, ["cheap"], ['"wood screws"'], ["[paint]", "free"])
WINDOWS = (None, None, [{"days": ["mon", "tue"], "from_hour": 8, "to_hour": 16}])
CAMPAIGNS: dict[str, dict[str, Any]] = {
    "c0": {"budget": "exhausted"},
    "c1": {"status": "paused"},
    "c2": {"ends_at": (NOW - timedelta(hours=1)).isoformat()},
    "c3": {"negative_keywords": ["used"]},
    "c4": {"pass_through_rate": 0.4},
    "c5": {"hours": [{"days": ["mon"], "from_hour": 0, "to_hour": 15}]},
}
"""Of c6 to c29 nothing is said."""
CAMPAIGN_COUNT = 30
_TWO_64 = 1 << 64


def target(ad: dict[str, Any], chance: random.Random, *, places: bool) -> dict[str, Any]:
    """Give an ad, as a feed has it, targeting; with places it is for some markets and languages."""
    market = chance.choice([None, *MARKETS, "us", "us"]) if places else None
    return ad | {
        "market": [market, "ca"] if market and chance.random() < 0.1 else market,
        "language": chance.choice(MARKETS[market]) if market and chance.random() < 0.9 else None,
        "campaign_id": f"c{chance.randrange(CAMPAIGN_COUNT)}",
        "devices": chance.choice(DEVICES),
        "bid": None if chance.random() < 0.02 else round(chance.random(), 4),
        "status": "paused" if chance.random() < 0.03 else "active",
        "negative_keywords": chance.choice(NEGATIVES),
        "hours": chance.choice(WINDOWS),
    }


def random_filters(chance: random.Random, advertisers: Sequence[str], categories: Sequence[str]) -> Filters:
    """What a request may ask for."""
    return Filters(
        market=chance.choice([None, *MARKETS, "US", "fr"]),
        language=chance.choice([None, None, "en", "es", "de"]),
        device=chance.choice([None, "mobile", "Desktop", "watch"]),
        exclude_advertisers=_some(chance, advertisers, 50),
        exclude_categories=_some(chance, categories, 200),
        min_bid=chance.choice([None, None, 0.2, 0.9]),
        max_per_advertiser=chance.choice([None, None, 2]),
        utc_offset_minutes=chance.choice([0, 60, -480]),
    )


def _some(chance: random.Random, names: Sequence[str], most: int) -> frozenset[str]:
    """None of them, a few, or many, but never all."""
    return frozenset(chance.sample(names, min(len(names) // 2, chance.choice([0, 0, 5, most]))))


def advertiser_of(ad: Mapping[str, Any]) -> str:
    """Shop data names a brand where an ad feed names its advertiser."""
    return ad.get("advertiser_id") or ad.get("brand") or ""


def ineligible(ads: Iterable[Mapping[str, Any]], wanted: Wanted) -> int:
    """How many of the ads of an answer should not be in it."""
    of_advertiser: Counter[str] = Counter()
    wrong = 0
    for ad in ads:
        advertiser = advertiser_of(ad)
        of_advertiser[advertiser] += 1
        most = wanted.filters.max_per_advertiser if advertiser else None
        wrong += not may_get(ad, wanted) or (most is not None and of_advertiser[advertiser] > most)
    return wrong


def may_get(ad: Mapping[str, Any], wanted: Wanted) -> bool:
    """Whether a request may get an ad, but for the cap per advertiser."""
    filters, campaign = wanted.filters, CAMPAIGNS.get(ad["campaign_id"], {})
    category = (ad.get("category") or "").lower()
    devices = [name.lower() for name in ad["devices"] or ()]
    return (
        ad["status"] == "active"
        and campaign.get("status") != "paused"
        and campaign.get("budget") != "exhausted"
        and all(_is_open(thing, filters.utc_offset_minutes) for thing in (ad, campaign))
        and not any(_forbids(thing, wanted.query) for thing in (ad, campaign))
        and _is_for(filters.market, ad["market"])
        and _is_for(filters.language, ad["language"])
        and (filters.device is None or not devices or filters.device.lower() in devices)
        and advertiser_of(ad) not in filters.exclude_advertisers
        and not any(
            category == name.lower() or category.startswith(f"{name.lower()} > ") for name in filters.exclude_categories
        )
        and (filters.min_bid is None or (ad["bid"] is not None and ad["bid"] >= filters.min_bid - 1e-6))
        and drawn(wanted.request_id, ad["campaign_id"]) < campaign.get("pass_through_rate", 1)
    )


def _is_open(thing: Mapping[str, Any], offset_minutes: int) -> bool:
    if thing.get("ends_at") and datetime.fromisoformat(thing["ends_at"]) <= NOW:
        return False
    local = NOW + timedelta(minutes=offset_minutes)
    return not thing.get("hours") or any(
        f"{local:%a}".lower() in window["days"] and window["from_hour"] <= local.hour < window["to_hour"]
        for window in thing["hours"]
    )


def _forbids(thing: Mapping[str, Any], query: str) -> bool:
    """For keywords and queries of plain lower-case words."""
    return any(
        query == keyword[1:-1] if keyword.startswith("[") else f" {keyword.strip(chr(34))} " in f" {query} "
        for keyword in thing.get("negative_keywords") or ()
    )


def _is_for(asked: str | None, places: str | Sequence[str] | None) -> bool:
    if asked is None or places is None:
        return True
    return asked.lower() in ([places] if isinstance(places, str) else places)


def drawn(request_id: str, campaign_id: str) -> float:
    """What decides, from 0 to below 1: SplitMix64 of two hashes."""
    mixed = _hash(request_id) ^ _hash(campaign_id)
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 % _TWO_64
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB % _TWO_64
    return ((mixed ^ mixed >> 31) >> 11) / (1 << 53)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
