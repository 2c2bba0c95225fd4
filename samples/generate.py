"""Makes a feed of plausible ads from the tables: seeded, the same bytes every time."""

import gzip
import math
import random
import re
import unicodedata
from collections.abc import Iterator
from typing import Any

import orjson

from samples.tables import DEPARTMENTS, DETAILS, LANGUAGES, MARKETS, PRODUCTS, Detail, Market, Product

BID_SIGMA = 0.6
"""Spread of the log-normal bids: about two thirds lie between half and twice the department's median."""

MAX_DETAILS = 3
"""Details named in one title."""

_DECIMAL_COMMA = ("de", "fr")
_STATUSES = {"active": 92, "paused": 5, "budget_paused": 2, "disapproved": 1}
_DEVICES = {("desktop", "mobile", "tablet"): 70, ("mobile", "tablet"): 12, ("mobile",): 10, ("desktop",): 8}
_PATTERNS = (
    "{brand} {name} {details} {model}",
    "{name} {details} - {brand} {model}",
    "{brand} {model} {name} {details}",
)


def feed_bytes(ad_count: int, seed: int) -> bytes:
    """A gzipped feed."""
    lines = b"".join(orjson.dumps(ad) + b"\n" for ad in generate_ads(ad_count, seed))
    return gzip.compress(lines, mtime=0)


def generate_ads(ad_count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield ads, each a line of a feed."""
    chance = random.Random(seed)  # noqa: S311 - seeded on purpose, nothing secret
    names = list(MARKETS)
    shares = [MARKETS[name].share for name in names]
    for number in range(1, ad_count + 1):
        market = chance.choices(names, shares)[0]
        yield _ad(f"{market}-{number:06d}", market, chance)


def _ad(ad_id: str, market_name: str, chance: random.Random) -> dict[str, Any]:
    market = MARKETS[market_name]
    product = chance.choice(PRODUCTS)
    department = DEPARTMENTS[product.department]
    brand = chance.choice(department.brands)
    title, attrs = _title(product, brand, market, chance)
    price = _price(product, market, chance)
    phrases = chance.sample(department.phrases, k=chance.choice((1, 2)))
    advertiser = _slug(brand if not price or chance.random() < 0.4 else chance.choice(market.shops))
    goal = chance.choice(("search", "brand", "season", "clearance"))
    return {
        "ad_id": ad_id,
        "title": title,
        "description": " ".join(phrase[LANGUAGES.index(market.language)] for phrase in phrases),
        "advertiser_id": advertiser,
        "campaign_id": f"{advertiser}-{market_name}-{_slug(product.department)}-{goal}",
        "category": f"{product.department} > {product.en.partition('/')[0]}",
        "market": market_name,
        "language": market.language,
        "devices": list(_choose(_DEVICES, chance)),
        "bid": round(max(0.02, department.bid * market.bid_factor * chance.lognormvariate(0, BID_SIGMA)), 2),
        "status": _choose(_STATUSES, chance),
        "landing_url": f"https://www.{advertiser}.example/{market_name}/{_slug(product.en.partition('/')[0])}/{ad_id}",
        "attrs": attrs | ({"brand": brand, "price": price, "currency": market.currency} if price else {"brand": brand}),
    }


def _title(product: Product, brand: str, market: Market, chance: random.Random) -> tuple[str, dict[str, str]]:
    """A title in the market's language, and the details it names, in English."""
    details = product.details.split()
    shown, attrs = [], {}
    for position in sorted(chance.sample(range(len(details)), k=min(len(details), chance.randint(1, MAX_DETAILS)))):
        key, _, allowed = details[position].partition("=")
        value = chance.choice(allowed.split("/") if allowed else DETAILS[key].values.split())
        shown.append(in_language(DETAILS[key], value, market.language))
        attrs[key] = value
    name = chance.choice(getattr(product, market.language).split("/"))
    model = f"{brand[:2].upper()}-{chance.randint(100, 9999)}" if product.price[1] > 0 and chance.random() < 0.7 else ""
    text = chance.choice(_PATTERNS).format(brand=brand, name=name, details=" ".join(shown), model=model)
    return " ".join(text.split()), attrs


def in_language(detail: Detail, value: str, language: str) -> str:
    """A value of a detail as a title says it."""
    text: str = getattr(detail, language)
    if "{}" in text:
        return text.format(value.replace(".", ",") if language in _DECIMAL_COMMA else value)
    return text.split("/")[detail.values.split().index(value)]


def _price(product: Product, market: Market, chance: random.Random) -> float | None:
    """A price as shops write them: just under a round one, the cheap ends of the range more often."""
    low, high = product.price
    if not high:
        return None
    dollars = math.exp(chance.uniform(math.log(low), math.log(high)))
    local = dollars * market.price_factor
    return round(math.ceil(local) - 0.01, 2) if market.price_factor < 10 else float(math.ceil(local / 100) * 100 - 1)


def _choose(weights: dict[Any, int], chance: random.Random) -> Any:
    return chance.choices(list(weights), list(weights.values()))[0]


def _slug(text: str) -> str:
    """Lower-case ASCII words joined by hyphens, for identifiers and host names."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return "-".join(re.findall(r"[a-z0-9]+", plain))
