"""What the requests ask for: queries of a file as popular as in a search log, and mixes of everything else."""

import bisect
import gzip
import itertools
import json
import random
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from loadtest.errors import LoadTestError

BUILT_IN_QUERIES = (
    "cordless drill 18v",
    "led light bulbs",
    "outdoor patio furniture set",
    "stainless steel kitchen sink",
    "wireless mouse",
    "running shoes women",
    "4x8 plywood",
    "air conditioner window unit",
    "garden hose 50 ft",
    "usb c charger",
    "ceiling fan with remote",
    "toddler car seat",
)

DRAWS_BEFORE_NUMBERS = 20
"""How often words are drawn anew where a combination was asked before, until it gets a number."""

T = TypeVar("T")
Mix = dict[Annotated[int, Field(ge=1)], Annotated[float, Field(gt=0)]]
"""Shares by number."""


@dataclass
class Source:
    """One process among those that ask, in one load after the other of one test."""

    worker: int = 0
    workers: int = 1
    load: int = 0
    asked: set[str] = field(default_factory=set)
    """Queries made up in earlier loads, which would not be new any more."""


class FilterShare(BaseModel):
    """Filters that a share of the requests has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    share: float = Field(gt=0, le=1)
    filters: dict[str, Any]


class Traffic(BaseModel):
    """What the requests of a load ask for; shares are weights, but for those of `filters` and `new_share`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    queries: Path | None = None
    """Tab-separated with a column `text`, or one query a line; gzip or not. None: a built-in dozen."""
    zipf: float = Field(0.0, ge=0)
    """The query at rank r of the file is asked as often as 1 / r^zipf says; 0 asks all in turn."""
    new_share: float = Field(0.0, ge=0, le=1)
    """Of the requests, those whose query nobody asked before: words of the file, put together anew."""
    lengths: Mix = {}
    """Share by number of words; empty leaves lengths as they are in the file."""
    top_k: Mix = Field({100: 1.0}, min_length=1)
    filters: tuple[FilterShare, ...] = ()
    """The rest of the requests has none."""
    timeout_ms: int = Field(1_000, ge=1, le=10_000)
    seed: int = 0

    @model_validator(mode="after")
    def _check_shares(self) -> Self:
        if sum(one.share for one in self.filters) > 1 + 1e-9:
            raise ValueError("the shares of filters come to more than 1")
        return self

    def requests(self, source: Source | None = None) -> Iterator[dict[str, Any]]:
        """Bodies of `POST /retrieve` without end; the same seed, worker and load give the same.

        Raises:
            LoadTestError: the queries cannot be read, or none is as long as asked for.
        """
        source = source or Source()
        rng = random.Random(f"{self.seed} {source.worker} {source.load}")  # noqa: S311 - a load, not a secret
        texts = self._texts(rng, source)
        top_ks = _Draw(self.top_k)
        without = 1 - sum(one.share for one in self.filters)
        filters = _Draw({-1: without} | {number: one.share for number, one in enumerate(self.filters)})

        def request(text: str) -> dict[str, Any]:
            body: dict[str, Any] = {"query": text, "top_k": top_ks(rng), "timeout_ms": self.timeout_ms}
            chosen = filters(rng) if self.filters else -1
            return body if chosen < 0 else body | {"filters": self.filters[chosen].filters}

        return map(request, texts)

    def _texts(self, rng: random.Random, source: Source) -> Iterator[str]:
        queries = read_queries(self.queries) if self.queries else list(BUILT_IN_QUERIES)
        known = _known(queries, self.zipf, self.lengths, rng, self.queries)
        if not self.new_share:
            return known
        fresh = _never_seen(queries, self.lengths, rng, source)
        return (next(fresh) if rng.random() < self.new_share else next(known) for _ in itertools.count())


class _Draw(Generic[T]):
    """Draws items as often as their weights say."""

    def __init__(self, weights: Mapping[T, float]) -> None:
        self._items = list(weights)
        self._bounds = list(itertools.accumulate(weights.values()))

    def __call__(self, rng: random.Random) -> T:
        return self._items[bisect.bisect_right(self._bounds, rng.random() * self._bounds[-1], hi=len(self._items) - 1)]


def read_queries(path: Path) -> list[str]:
    """Queries of a file, without its header line where a column of it is called `text`.

    Raises:
        LoadTestError: it cannot be read as such.
    """
    try:
        content = path.read_bytes()
        lines = (gzip.decompress(content) if path.suffix == ".gz" else content).decode().splitlines()
        return _texts_of([line for line in lines if line.strip()])
    except (OSError, ValueError, EOFError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise LoadTestError(f"{path}: cannot be read as queries ({reason})") from error


def _texts_of(lines: list[str]) -> list[str]:
    header = lines[0].split("\t") if lines else []
    if "text" in header:
        column = header.index("text")
        rows = [line.split("\t") for line in lines[1:]]
        short = next((number for number, row in enumerate(rows, 2) if len(row) <= column), None)
        if short:
            raise ValueError(f"row {short} has no column `text`")
        lines = [row[column] for row in rows if row[column].strip()]
    if not lines:
        raise ValueError("it holds no query")
    return lines


def read_filters(path: Path) -> tuple[FilterShare, ...]:
    """A filter mix: a JSON list of `{"share": 0.5, "filters": {…}}`.

    Raises:
        LoadTestError: the file is none.
    """
    try:
        found = tuple(FilterShare.model_validate(one) for one in json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise LoadTestError(f"{path}: expected a JSON list of {{share, filters}} ({reason})") from error
    if sum(one.share for one in found) > 1 + 1e-9:
        raise LoadTestError(f"{path}: the shares come to more than 1")
    return found


def parse_mix(text: str) -> dict[int, float]:
    """`100`, or `10=0.2,100=0.8`, as shares by number.

    Raises:
        LoadTestError: it is neither.
    """
    try:
        pairs = [(*part.split("="), "1")[:2] for part in text.split(",")]
        mix = {int(number): float(share) for number, share in pairs}
    except ValueError:
        mix = {}
    if not mix or min(mix) < 1 or min(mix.values()) <= 0:
        raise LoadTestError(f"{text!r}: expected a number, or shares as in 10=0.2,100=0.8")
    return mix


def _known(
    queries: Sequence[str], zipf: float, lengths: Mapping[int, float], rng: random.Random, path: Path | None
) -> Iterator[str]:
    """Queries of the file: of each length in turn, or by rank."""
    if not lengths:
        return _by_rank(queries, zipf, rng)
    groups: dict[int, list[str]] = defaultdict(list)
    for query in queries:
        groups[len(query.split())].append(query)
    missing = sorted(lengths.keys() - groups.keys())
    if missing:
        raise LoadTestError(f"{path or 'the built-in queries'}: none has {missing[0]} words, which `lengths` asks for")
    streams = {length: _by_rank(groups[length], zipf, rng) for length in lengths}
    draw = _Draw(lengths)
    return (next(streams[draw(rng)]) for _ in itertools.count())


def _by_rank(queries: Sequence[str], zipf: float, rng: random.Random) -> Iterator[str]:
    if not zipf:  # from a place of its own, lest several sources, or loads, ask the same at about the same time
        start = rng.randrange(len(queries))
        return itertools.cycle([*queries[start:], *queries[:start]])
    draw = _Draw({rank: (rank + 1) ** -zipf for rank in range(len(queries))})
    return (queries[draw(rng)] for _ in itertools.count())


def _never_seen(
    queries: Sequence[str], lengths: Mapping[int, float], rng: random.Random, source: Source
) -> Iterator[str]:
    """Words of the file in new combinations, as long as its queries, that no other worker and no earlier load asks."""
    words = [query.split() for query in queries]
    vocabulary = sorted({word for query in words for word in query})
    draw = _Draw(lengths) if lengths else None
    known = set(queries)

    def is_new(text: str) -> bool:
        # By its sum, so that workers need not ask each other.
        mine = zlib.crc32(text.encode()) % source.workers == source.worker % source.workers
        return mine and text not in known and text not in source.asked

    while True:
        length = draw(rng) if draw else len(rng.choice(words))
        combinations = (" ".join(rng.choices(vocabulary, k=length)) for _ in range(DRAWS_BEFORE_NUMBERS))
        text = next(filter(is_new, combinations), "")
        while not text:
            numbered = f"{' '.join(rng.choices(vocabulary, k=length))[:400]} {rng.randrange(10**6)}"
            text = numbered if is_new(numbered) else ""
        source.asked.add(text)
        yield text
