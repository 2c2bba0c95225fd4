"""Negative keywords: queries that an ad must not be shown for, as exact ones or as phrases.

Matching ignores case, accents and punctuation, and nothing else: singular and plural, `toothbrush` and `tooth brush`
are different, as with the large ad platforms (Microsoft Advertising, "negative keywords").
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

_APOSTROPHES = re.compile("['\u2019\u02bc]")
_WORD = re.compile(r"[^\W_]+")
_EXACT = re.compile(r"\[(.*)\]", re.DOTALL)
_PHRASE = re.compile(r'"(.*)"', re.DOTALL)

Words = tuple[str, ...]


class Keyword(NamedTuple):
    """One negative keyword."""

    words: Words
    exact: bool
    """Whether it forbids only the very query; otherwise every query that has its words side by side."""


def words_of(text: str) -> Words:
    """What is compared: case-folded words without accents; an apostrophe is dropped, other punctuation separates."""
    if not text.isascii():
        decomposed = unicodedata.normalize("NFKD", text)
        text = "".join(character for character in decomposed if not unicodedata.combining(character))
    return tuple(_WORD.findall(_APOSTROPHES.sub("", text.casefold())))


def parse_keyword(text: str) -> Keyword:
    """Read `[exact]`, `"phrase"` or a bare phrase, the notation of the ad platforms.

    Raises:
        ValueError: it has no word.
    """
    exact = _EXACT.fullmatch(text.strip())
    phrase = _PHRASE.fullmatch(text.strip())
    inner = exact or phrase
    words = words_of(inner[1] if inner else text)
    if not words:
        raise ValueError(f"negative keyword {text!r} has no word")
    return Keyword(words, exact is not None)


class KeywordLists:
    """Distinct lists of negative keywords by number, 0 being the empty one; many ads share one list.

    One thread adds, others look up: a list is entered before anything refers to its number.
    """

    def __init__(self) -> None:
        """Start with the empty list."""
        self._numbers: dict[frozenset[Keyword], int] = {frozenset(): 0}
        self._exact: dict[Words, set[int]] = {}
        self._phrases: dict[Words, set[int]] = {}
        self._phrase_lengths: set[int] = set()

    def __len__(self) -> int:
        return len(self._numbers)

    def number_of(self, keywords: Iterable[str]) -> int:
        """The number of a list, which is entered where it is new.

        Raises:
            ValueError: a keyword has no word.
        """
        parsed = frozenset(map(parse_keyword, keywords))
        number = self._numbers.get(parsed)
        if number is None:
            number = len(self._numbers)
            for keyword in parsed:
                by_words = self._exact if keyword.exact else self._phrases
                by_words.setdefault(keyword.words, set()).add(number)
            self._phrase_lengths |= {len(keyword.words) for keyword in parsed if not keyword.exact}
            self._numbers[parsed] = number
        return number

    def forbidding(self, words: Words) -> set[int]:
        """Numbers of the lists that forbid a query of these words."""
        found = set(self._exact.get(words, ()))
        for length in tuple(self._phrase_lengths):
            for start in range(len(words) - length + 1):
                found |= self._phrases.get(words[start : start + length], frozenset())
        return found

    def texts(self) -> list[list[str]]:
        """The lists by number, in the notation that `parse_keyword` reads."""
        return [sorted(map(_text_of, keywords)) for keywords in self._numbers]

    @classmethod
    def of(cls, lists: Sequence[Sequence[str]]) -> "KeywordLists":
        """What `texts` gave."""
        entered = cls()
        for keywords in lists:
            entered.number_of(keywords)
        return entered


def normalized(keywords: Iterable[str]) -> list[str]:
    """The keywords of a list as `KeywordLists.texts` gives them.

    Raises:
        ValueError: a keyword has no word.
    """
    return sorted(_text_of(keyword) for keyword in frozenset(map(parse_keyword, keywords)))


def _text_of(keyword: Keyword) -> str:
    text = " ".join(keyword.words)
    return f"[{text}]" if keyword.exact else f'"{text}"'
