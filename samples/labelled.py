"""A labelled set on top of the sample ads: queries, grades and unlabelled queries, to try training with."""

import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from samples.generate import feed_bytes, generate_ads, in_language
from samples.tables import DETAILS, PRODUCTS

LANGUAGE = "en"
DEV_SHARE = 0.25
WRONG_JUDGED = 3
"""Ads of the department, but of another product, that a query is judged against."""
TITLE_WORDS = (2, 4)
"""Of a title, make an unlabelled query."""


class GradedQuery(NamedTuple):
    """A query and the grade, 0 to 2, of each ad that was judged for it."""

    text: str
    grades: dict[str, int]


def labelled_files(ad_count: int, query_count: int, unlabelled_count: int, seed: int) -> dict[str, bytes]:
    """Contents of all files of a labelled set by name, and of `unlabelled.tsv`; the same seed, the same bytes."""
    chance = random.Random(seed)  # noqa: S311 - seeded on purpose, nothing secret
    ads = [ad for ad in generate_ads(ad_count, seed) if ad["status"] == "active"]
    queries = grade_queries([ad for ad in ads if ad["language"] == LANGUAGE], chance)
    queries = chance.sample(queries, min(query_count, len(queries)))
    dev_count = int(DEV_SHARE * len(queries))
    files = {"ads.jsonl.gz": feed_bytes(ad_count, seed)}
    for split, part in (("dev", queries[:dev_count]), ("train", queries[dev_count:])):
        ids = [f"{split}-{number:05d}" for number in range(len(part))]
        lines = [f"{query_id}\t{query.text}" for query_id, query in zip(ids, part, strict=True)]
        files[f"queries.{split}.tsv"] = _table("query_id\ttext", lines)
        lines = [
            f"{query_id}\t{ad_id}\t{grade}"
            for query_id, query in zip(ids, part, strict=True)
            for ad_id, grade in query.grades.items()
        ]
        files[f"qrels.{split}.tsv"] = _table("query_id\tad_id\tgrade", lines)
    files["unlabelled.tsv"] = _unlabelled(ads, queries, dev_count, unlabelled_count, chance)
    return files


def grade_queries(ads: Sequence[Mapping[str, Any]], chance: random.Random) -> list[GradedQuery]:
    """Queries that name a product and one of its details or its brand; right is an ad that has both.

    An ad of the product without the detail is partly right.
    """
    by_product: dict[str, list[Mapping[str, Any]]] = {}
    for ad in ads:
        by_product.setdefault(ad["category"], []).append(ad)
    queries = []
    for product in PRODUCTS:
        name = product.en.partition("/")[0]
        category = f"{product.department} > {name}"
        others = [ad for ad in ads if ad["category"].startswith(product.department) and ad["category"] != category]
        own = by_product.get(category, [])
        for key, value in sorted(
            {(key, ad["attrs"][key]) for ad in own for key in (*DETAILS, "brand") if key in ad["attrs"]}
        ):
            grades = {ad["ad_id"]: 2 if ad["attrs"].get(key) == value else 1 for ad in own}
            grades |= {ad["ad_id"]: 0 for ad in chance.sample(others, min(WRONG_JUDGED, len(others)))}
            words = value if key == "brand" else in_language(DETAILS[key], value, LANGUAGE)
            text = f"{words} {name}" if key == "brand" else f"{name} {words}"
            queries.append(GradedQuery(text.lower(), grades))
    return queries


def _unlabelled(
    ads: Sequence[Mapping[str, Any]],
    queries: Sequence[GradedQuery],
    dev_count: int,
    count: int,
    chance: random.Random,
) -> bytes:
    """The train queries, and words of titles up to `count` lines in all; no dev query is among them."""
    found = dict.fromkeys((query.text for query in queries[dev_count:]), "search")
    held = {_words(query.text) for query in queries[:dev_count]}
    for _ in range(20 * count):
        if len(found) >= count:
            break
        words = chance.choice(ads)["title"].lower().split()
        size = min(len(words), chance.randint(*TITLE_WORDS))
        text = " ".join(words[position] for position in sorted(chance.sample(range(len(words)), size)))
        if _words(text) not in held:
            found.setdefault(text, "title")
    return _table("text\tsource", [f"{text}\t{source}" for text, source in found.items()])


def _words(text: str) -> tuple[str, ...]:
    """What makes two queries one, whatever the order."""
    return tuple(sorted(text.split()))


def _table(header: str, lines: Sequence[str]) -> bytes:
    return "".join(f"{line}\n" for line in (header, *lines)).encode()
