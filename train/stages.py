"""The ways from query texts to ads that a recipe's results allow, from the teacher to what is served.

Each differs from another in one thing, so that losses come apart: the teacher and each student search exactly in
PyTorch; an exported encoder searches exactly, then through the index, then through it with filters.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from index.ad_index import SearchHits
from index.embed import embed_queries
from index.exact import exact_top_k
from index.filters import NO_FILTERS, Filters, Wanted
from service.encoder import Encoder
from train import present
from train.data import Inventory
from train.embed_ads import current_ads
from train.embeddings import read_embeddings
from train.encoders import Embeddings, embed_all, load_encoder
from train.runs import Run

NO_AD = -1
"""Row where the index found fewer ads than were asked for."""

Embed = Callable[[Sequence[str]], Embeddings]
Search = Callable[[Sequence[str], Embeddings], NDArray[np.int64]]
"""Of queries and their embeddings, the rows of the ads found, best first."""

Ask = Callable[[Embeddings, Sequence[Wanted]], list[SearchHits]]


@dataclass(frozen=True)
class Stage:
    """A way from query texts to rows of ads."""

    name: str
    embed: Embed
    search: Search
    before: str | None = None
    """The stage that it differs from in one thing."""


@dataclass(frozen=True)
class Selection:
    """Which ads a request may get."""

    filters: Filters
    rows: NDArray[np.int64]
    """All that are active and pass, in rising order."""


def every_ad(inventory: Inventory) -> Selection:
    """What a request without filters may get."""
    return Selection(NO_FILTERS, np.array(inventory.active))


def half_the_advertisers(inventory: Inventory) -> Selection:
    """What a request may get that excludes every second advertiser, by a hash of the name."""
    advertisers = [orjson.loads(line).get("advertiser_id") for line in inventory.lines]
    excluded = frozenset(name for name in advertisers if name and hashlib.sha256(name.encode()).digest()[0] % 2)
    rows = [row for row in inventory.active if advertisers[row] not in excluded]
    return Selection(Filters(exclude_advertisers=excluded), np.array(rows))


class Stages:
    """The stages of a run, as far as its results are there and `train.present` counts them."""

    def __init__(self, run: Run, inventory: Inventory, now_s: float) -> None:
        """Open what a run has.

        Args:
            run: the recipe and its results.
            inventory: all its ads.
            now_s: when the index is asked, in seconds since 1970, for the schedules of ads.

        Raises:
            HlmError: teacher or ads are not there yet, or the ads are of another teacher or feed.
        """
        self._run, self._inventory, self._now_s = run, inventory, now_s
        embedded = current_ads(run, inventory)
        self._ads, self._joint_ads = read_embeddings(run.ads), present.joint_ads(run, inventory)
        self._checkpoints = list(present.checkpoints(run, embedded))
        self._exports = list(present.exports(run, self._checkpoints))
        self._index = present.index(run, embedded, self._ads)
        self._embedders: dict[str, Embed] = {}

    @property
    def has_index(self) -> bool:
        """Whether there is a release of the present ads."""
        return self._index is not None

    def unfiltered(self, k: int) -> Iterator[Stage]:
        """The teacher first, then each student as far as it has come, then what is exported."""
        everything = every_ad(self._inventory)
        exact = self._exact(everything, k)
        last: dict[str, str] = {}
        for one in self._checkpoints:
            embed = self._embed(one.stage, partial(_checkpoint, self._run, one.stage, one.directory))
            yield Stage(one.stage, embed, exact, last.get(one.owner, last.get("teacher")))
            last[one.owner] = one.stage
        if self._joint_ads is not None:
            embed = self._embed("joint", partial(_checkpoint, self._run, "joint", self._run.joint))
            yield Stage("joint", embed, partial(exact_rows, self._joint_ads, everything, k))
        yield from self._exported(everything, k, last)

    def filtered(self, selection: Selection, k: int) -> Iterator[Stage]:
        """The teacher, and what is exported, among some of the ads: exactly, and through the index with a filter."""
        teacher = self._embed("teacher", partial(_checkpoint, self._run, "teacher", self._run.teacher))
        yield Stage("teacher", teacher, self._exact(selection, k))
        yield from self._exported(selection, k, {})

    def _exported(self, selection: Selection, k: int, before: Mapping[str, str]) -> Iterator[Stage]:
        """Exported encoders, each after the stage that `before` has for its owner."""
        for owner, precision in self._exports:
            name = f"{owner}, {precision}"
            embed = self._embed(name, partial(_artifact, self._run.exported(owner, precision)))
            yield Stage(name, embed, self._exact(selection, k), before.get(owner))
            if self._index is not None:
                through = partial(self._asked, self._index.search, selection, k)
                yield Stage(f"{name}, HNSW", embed, through, name)

    def _embed(self, name: str, embed: Embed) -> Embed:
        """How a stage embeds; the same for all stages of a name, so that it is done once for each list of queries."""
        return self._embedders.setdefault(name, _once(embed))

    def _exact(self, selection: Selection, k: int) -> Search:
        """By the index where there is one, as the service asks it: schedules and negative keywords count everywhere."""
        if self._index is None:
            return partial(exact_rows, self._ads, selection, k)
        return partial(self._asked, self._index.exact_search, selection, k)

    def _asked(
        self, ask: Ask, selection: Selection, k: int, texts: Sequence[str], embeddings: Embeddings
    ) -> NDArray[np.int64]:
        rows = np.full((len(embeddings), k), NO_AD)
        wanted = [Wanted(k, selection.filters, text, at=self._now_s) for text in texts]
        for found, hits in zip(rows, ask(embeddings, wanted), strict=True):
            found[: len(hits.ad_ids)] = [self._inventory.rows[ad_id] for ad_id in hits.ad_ids]
        return rows


def exact_rows(
    ads: Embeddings, selection: Selection, k: int, _: Sequence[str], embeddings: Embeddings
) -> NDArray[np.int64]:
    """Rows of the k ads nearest to each embedding, among those selected."""
    return exact_top_k(embeddings, ads, k, rows=selection.rows)[0]


def _checkpoint(run: Run, name: str, directory: Path, texts: Sequence[str]) -> Embeddings:
    """Embed with a checkpoint that is in memory only meanwhile."""
    return embed_all(load_encoder(str(directory)), texts, run.recipe.query, f"Queries, {name}")


def _artifact(directory: Path, texts: Sequence[str]) -> Embeddings:
    return embed_queries(texts, Encoder.load(directory)[0])


def _once(embed: Embed) -> Embed:
    """Remembers the last answer."""
    last: list[tuple[Sequence[str], Embeddings]] = []

    def remembered(texts: Sequence[str]) -> Embeddings:
        if not last or last[0][0] is not texts:
            last[:] = [(texts, embed(texts))]
        return last[0][1]

    return remembered
