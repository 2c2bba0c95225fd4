"""Negative keywords: what a query is made of, and which queries a list forbids."""

import pytest

from index.keywords import KeywordLists, parse_keyword, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Cordless DRILL", ("cordless", "drill")),
        ("café crème", ("cafe", "creme")),
        ("men's shoes", ("mens", "shoes")),
        ("18v/20v, drill-bit", ("18v", "20v", "drill", "bit")),
        ("Straße", ("strasse",)),
        ("snake_case", ("snake", "case")),
        ("!?", ()),
    ],
)
def test_case_accents_and_punctuation_make_no_difference(text: str, words: tuple[str, ...]):
    assert words_of(text) == words


@pytest.mark.parametrize(
    ("keyword", "query", "forbidden"),
    [
        ("red shoes", "buy red shoes now", True),
        ('"red shoes"', "Red  Shoes!", True),
        ("red shoes", "shoes red", False),
        ("red shoes", "red running shoes", False),
        ("red shoes", "redshoes", False),
        ("shoe", "shoes", False),
        ("[red shoes]", "red shoes", True),
        ("[red shoes]", "red shoes now", False),
        ("tooth brush", "toothbrush", False),
    ],
)
def test_a_phrase_forbids_its_words_side_by_side_and_an_exact_one_the_very_query(
    keyword: str, query: str, forbidden: bool
):
    lists = KeywordLists()
    number = lists.number_of([keyword, "unrelated"])
    assert (number in lists.forbidding(words_of(query))) is forbidden


def test_equal_lists_are_one_and_the_empty_one_forbids_nothing():
    lists = KeywordLists()
    assert lists.number_of([]) == 0
    assert lists.number_of(["a b", "[c]"]) == lists.number_of(["[C]", '"A  b"']) == 1
    assert lists.forbidding(words_of("anything")) == set()


def test_lists_come_back_by_the_same_numbers():
    lists = KeywordLists()
    for keywords in (["a b"], ["[c]", "d"], ["e"]):
        lists.number_of(keywords)
    again = KeywordLists.of(lists.texts())
    assert again.forbidding(("c",)) == lists.forbidding(("c",)) == {2}
    assert again.texts() == lists.texts()


def test_a_keyword_without_a_word_is_refused():
    with pytest.raises(ValueError, match="has no word"):
        parse_keyword("[--]")
