"""Queries made up of ads' titles: they teach phase 1 the words of all ads, of which labels know a few."""

import random
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence

from train.data import RELEVANT_GRADE, Inventory, LabelledQueries, Pair, word_key

LENGTHS = (2, 3, 3, 4, 4, 5)
"""Words of a made-up query, each as likely as the others; as long as most product searches are."""
_AROUND_WORDS = ",()"


def title_queries(titles: Mapping[str, str], per_ad: float, seed: int) -> Iterator[tuple[str, str]]:
    """Made-up queries, each with the ad_id that it asks for: a few words of the ad's title in their order.

    Half of them are words that stand side by side, half are picked from the whole title. A title of one word gives
    none. Each ad has chance of its own, so its queries are the same whatever other ads there are.

    Args:
        titles: by ad_id.
        per_ad: how many an ad; by chance one more or less where it is no whole number.
        seed: of the choice.
    """
    for ad_id, title in titles.items():
        words = _words(title)
        if len(words) < min(LENGTHS):
            continue
        chance = random.Random(f"{seed}/{ad_id}")  # noqa: S311 - seeded on purpose, nothing secret
        for _ in range(int(per_ad) + (chance.random() < per_ad % 1)):
            yield " ".join(_pick(words, chance)), ad_id


def label_titles(inventory: Inventory, per_ad: float, seed: int, held_out: Iterable[str]) -> LabelledQueries:
    """The made-up queries of an inventory; a text that several ads gave asks for all of them.

    What has the words of a query of `held_out` is left out, since that is to measure what was not learnt from.
    """
    grades: dict[str, dict[int, int]] = {}
    measured = {word_key(" ".join(_words(text))) for text in held_out}
    for text, ad_id in title_queries(inventory.titles(), per_ad, seed):
        if word_key(text) not in measured:
            grades.setdefault(text, {})[inventory.rows[ad_id]] = RELEVANT_GRADE
    return LabelledQueries(list(grades), list(grades), list(grades.values()))


def mix(batches: Sequence[list[Pair]], others: Sequence[list[Pair]], seed: int) -> list[list[Pair]]:
    """Two plans as one: the batches of each in their order, taking turns by chance."""
    turns = [True] * len(batches) + [False] * len(others)
    random.Random(f"{seed}/mix").shuffle(turns)  # noqa: S311 - seeded on purpose, nothing secret
    first, second = iter(batches), iter(others)
    return [next(first) if turn else next(second) for turn in turns]


def _words(text: str) -> list[str]:
    """Lower-cased and in NFKC, as an encoder reads them, without commas and brackets around them."""
    parts = unicodedata.normalize("NFKC", text).lower().split()
    return [word for part in parts if (word := part.strip(_AROUND_WORDS))]


def _pick(words: Sequence[str], chance: random.Random) -> list[str]:
    length = min(chance.choice(LENGTHS), len(words))
    if chance.random() < 0.5:
        start = chance.randrange(len(words) - length + 1)
        return list(words[start : start + length])
    return [words[position] for position in sorted(chance.sample(range(len(words)), length))]
