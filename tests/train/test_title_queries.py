"""Queries made up of titles: their words, how many there are, and how they are mixed in."""

from collections import Counter

import pytest

from train.data import Inventory, Pair, relevant_pairs
from train.title_queries import label_titles, mix, title_queries

TITLE = "Hampton Bay (2-Pack), LED Ceiling Fan"
WORDS = ["hampton", "bay", "2-pack", "led", "ceiling", "fan"]


def test_a_title_of_two_words_is_the_query_itself():
    assert list(title_queries({"a": "Garden, (Chair)"}, per_ad=2, seed=1)) == [("garden chair", "a")] * 2


@pytest.mark.parametrize("title", ["", "sofa", "Sofa , ()", "()"])
def test_a_title_of_fewer_words_gives_none(title: str):
    assert list(title_queries({"a": title}, per_ad=5, seed=1)) == []


def test_words_come_in_the_order_of_the_title_side_by_side_or_scattered():
    queries = [text.split() for text, _ in title_queries({"a": TITLE}, per_ad=6000, seed=1)]
    positions = [[WORDS.index(word) for word in words] for words in queries]
    assert all(found == sorted(set(found)) for found in positions)
    lengths = Counter(map(len, queries))
    assert [lengths[length] / 6000 for length in (2, 3, 4, 5)] == pytest.approx([1 / 6, 1 / 3, 1 / 3, 1 / 6], abs=0.02)
    beside = sum(found[-1] - found[0] == len(found) - 1 for found in positions) / 6000
    # Of the scattered ones, these stand side by side by chance: 5 of 15 pairs, 4 of 20, 3 of 15 and 2 of 6.
    by_chance = (5 / 15 + 2 * 4 / 20 + 2 * 3 / 15 + 2 / 6) / 6
    assert beside == pytest.approx(0.5 + 0.5 * by_chance, abs=0.02)


def test_the_number_an_ad_is_kept_on_average():
    titles = {str(number): TITLE for number in range(4000)}
    for per_ad in (0, 0.5, 1, 2.25):
        counts = Counter(ad_id for _, ad_id in title_queries(titles, per_ad, seed=1))
        assert sum(counts.values()) / len(titles) == pytest.approx(per_ad, abs=0.03)
        assert set(counts.values()) <= {int(per_ad), int(per_ad) + 1}


def test_an_ad_has_the_same_queries_whatever_else_there_is():
    titles = {"a": TITLE, "b": "Oak Table With Four Chairs", "c": "Green Garden Hose 50 ft"}
    backwards = dict(reversed(titles.items()))
    made = sorted(title_queries(titles, per_ad=3, seed=1))
    assert sorted(title_queries(backwards, per_ad=3, seed=1)) == made
    assert list(title_queries({"b": titles["b"]}, per_ad=3, seed=1)) == [
        one for one in title_queries(backwards, per_ad=3, seed=1) if one[1] == "b"
    ]
    assert sorted(title_queries(titles, per_ad=3, seed=2)) != made


def inventory_of(titles: list[str]) -> Inventory:
    lines = [
        f'{{"ad_id": "{row}", "title": "{title}", "description": "never used"}}'.encode()
        for row, title in enumerate(titles)
    ]
    return Inventory({str(row): row for row in range(len(titles))}, titles, lines, [], Counter())


def test_ads_that_gave_the_same_text_are_all_asked_for_by_one_query():
    inventory = inventory_of(["Garden Chair", "sofa", "garden (chair)"])
    made_up = label_titles(inventory, per_ad=1, seed=1, held_out=[])
    assert (made_up.texts, made_up.grades) == (["garden chair"], [{0: 2, 2: 2}])
    assert relevant_pairs(made_up) == [Pair(0, 0), Pair(0, 2)]
    assert label_titles(inventory, per_ad=0, seed=1, held_out=[]).texts == []


@pytest.mark.parametrize("held_out", ["Chair  garden", "garden, chair", "(Garden) chair", "ｇａｒｄｅｎ chair"])
@pytest.mark.parametrize("title", ["Garden Chair", "Garden, (Chair)", "Garden ｃｈａｉｒ"])
def test_a_query_that_is_held_out_is_never_made_up(title: str, held_out: str):
    inventory = inventory_of([title, "oak table"])
    assert label_titles(inventory, per_ad=1, seed=1, held_out=[held_out]).texts == ["oak table"]


def test_two_plans_take_turns_and_keep_their_order():
    one, other = ([[Pair(kind, number)] for number in range(20)] for kind in (0, 1))
    mixed = mix(one, other[:5], seed=1)
    assert [batch for batch in mixed if batch[0].query == 0] == one
    assert [batch for batch in mixed if batch[0].query == 1] == other[:5]
    assert mixed not in (one + other[:5], other[:5] + one)
    assert mixed == mix(one, other[:5], seed=1) != mix(one, other[:5], seed=2)
