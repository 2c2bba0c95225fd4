"""Which segments an ad is in, and which of them a request has to search: one segment for each market × language.

An ad that names no market is in that of `any`, so a request that names one searches that market's segments and those of
`any`; one that names none searches all.
"""

from collections.abc import Collection, Sequence
from itertools import product
from typing import Generic, NamedTuple, Protocol, TypeVar

from index.filters import Filters

ANY = "any"
"""The market or language of the ads that name none."""


class SegmentKey(NamedTuple):
    """What the ads of a segment have in common."""

    market: str
    language: str

    @property
    def name(self) -> str:
        """As directories and reports have it; unambiguous, since `fold` leaves no hyphen."""
        return f"{self.market}-{self.language}"


def fold(name: str) -> str:
    """A market or language as it is compared: `pt-BR` and `PT_br` are one."""
    return name.casefold().replace("-", "_")


def keys_of(markets: Collection[str] | None, languages: Collection[str] | None) -> list[SegmentKey]:
    """The segments that an ad is in."""
    return [SegmentKey(*pair) for pair in product(_places(markets), _places(languages))]


def _places(names: Collection[str] | None) -> list[str]:
    folded = {fold(name) for name in names or ()}
    return [ANY] if not folded or ANY in folded else sorted(folded)


class Routed(Protocol):
    """A segment, as far as routing goes."""

    @property
    def key(self) -> SegmentKey:
        """What its ads have in common."""


R = TypeVar("R", bound=Routed)


class Routing(Generic[R]):
    """Finds the segments of a request."""

    def __init__(self, segments: Sequence[R]) -> None:
        """Take all segments there are."""
        self.segments = list(segments)
        self._by_key = {segment.key: segment for segment in segments}

    def route(self, filters: Filters) -> list[R]:
        """The segments that hold what a request may get."""
        market, language = _asked(filters.market), _asked(filters.language)
        if market and language:
            keys = keys_of_request(market, language)
            return [self._by_key[key] for key in keys if key in self._by_key]
        if not market and not language:
            return self.segments
        return [
            segment
            for segment in self.segments
            if (not market or segment.key.market in (market, ANY))
            and (not language or segment.key.language in (language, ANY))
        ]


def keys_of_request(market: str, language: str) -> set[SegmentKey]:
    """The keys that a request with both may find ads under."""
    return {SegmentKey(*pair) for pair in product((market, ANY), (language, ANY))}


def _asked(name: str | None) -> str | None:
    folded = fold(name) if name else ANY
    return None if folded == ANY else folded
