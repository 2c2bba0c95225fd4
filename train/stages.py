"""The ways from query texts to ads that a recipe's results allow, from the teacher to what is served.

Each differs from another in one thing, so that losses come apart: the teacher and each student search exactly in
PyTorch; an exported encoder searches exactly, then through the index, then through it with filters.

A result that does not rest on the present ones before it is left out, with a line that says so.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from artifacts.manifest import MANIFEST_NAME
from artifacts.store import is_current, load_manifest
from index.ad_index import SearchHits
from index.embed import embed_queries
from index.exact import exact_top_k
from index.filters import NO_FILTERS, Filters, Wanted
from index.load import FrozenIndex, load_index
from service.encoder import MODEL_NAME, Encoder
from terminal import console
from train.data import Inventory
from train.embed_ads import current_ads
from train.embeddings import embeddings_key, read_embeddings
from train.encoders import Embeddings, embed_all, load_encoder
from train.refine import refinement_key
from train.release import is_export
from train.runs import CheckpointManifest, EmbeddingsManifest, Run

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
    """The stages of a run, as far as its results are there and belong to its teacher."""

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
        self._embedded = current_ads(run, inventory)
        self._ads = read_embeddings(run.ads)
        self._checkpoints = list(self._current_checkpoints())
        self._joint_ads = self._open_joint_ads()
        self._embedders: dict[str, Embed] = {}
        self._index = self._open_index()

    @property
    def has_index(self) -> bool:
        """Whether the release has been made."""
        return self._index is not None

    def unfiltered(self, k: int) -> Iterator[Stage]:
        """The teacher first, then each student as far as it has come, then what is exported."""
        selection = every_ad(self._inventory)
        exact = partial(exact_rows, self._ads, selection, k)
        last: dict[str, str] = {}
        for owner, name, directory in self._checkpoints:
            yield Stage(name, self._embed(name, directory), exact, last.get(owner, last.get("teacher")))
            last[owner] = name
        if self._joint_ads is not None:
            among = partial(exact_rows, self._joint_ads, selection, k)
            yield Stage("joint", self._embed("joint", self._run.joint), among)
        for owner, name, directory in self._exports():
            embed = self._embed(name, directory)
            if self._index is None:
                yield Stage(name, embed, exact, last[owner])
            else:
                yield from self._through(self._index, name, embed, selection, k, last[owner])

    def filtered(self, selection: Selection, k: int) -> Iterator[Stage]:
        """The teacher, and what is exported, among some of the ads: exactly, and through the index with a filter."""
        exact = partial(exact_rows, self._ads, selection, k)
        yield Stage("teacher", self._embed("teacher", self._run.teacher), exact)
        for _, name, directory in self._exports():
            assert self._index is not None
            yield from self._through(self._index, name, self._embed(name, directory), selection, k)

    def _current_checkpoints(self) -> Iterator[tuple[str, str, Path]]:
        """The teacher or student, the stage and where it lies."""
        run = self._run
        yield "teacher", "teacher", run.teacher
        for student in run.recipe.students:
            aligned, refined = run.aligned(student.name), run.refined(student.name)
            if not _has(aligned):
                continue
            manifest = load_manifest(aligned, CheckpointManifest)
            if not _rests(aligned, manifest.space == self._embedded.space):
                continue
            yield student.name, f"{student.name}, aligned", aligned
            if student.refine and _has(refined):
                key = refinement_key(run, student.refine, manifest, self._embedded)
                if _rests(refined, is_current(refined, CheckpointManifest, key)):
                    yield student.name, f"{student.name}, refined", refined

    def _exports(self) -> Iterator[tuple[str, str, Path]]:
        current = {directory for _, _, directory in self._checkpoints}
        for name, precision in self._run.exports:
            directory = self._run.exported(name, precision)
            if _has(directory):
                is_of_last = self._run.final(name) in current and is_export(self._run, name, precision)
                if _rests(directory, is_of_last):
                    yield name, f"{name}, {precision}", directory

    def _open_joint_ads(self) -> Embeddings | None:
        directory, encoder = self._run.joint_ads, self._run.joint_ads_encoder
        if not (_has(directory) and _has(encoder)):
            return None
        made = load_manifest(encoder, CheckpointManifest)
        key = embeddings_key(made, self._inventory.texts, self._run.recipe.ad)
        is_whole = is_current(directory, EmbeddingsManifest, key)
        return read_embeddings(directory) if _rests(directory, is_whole) else None

    def _open_index(self) -> FrozenIndex | None:
        if not _has(self._run.index):
            return None
        index, rows = load_index(self._run.index), self._inventory.rows
        ids = index.ads.json_ids(np.arange(len(index.ads)))
        fits = index.manifest.space == self._embedded.space and ids == [orjson.dumps(ad_id) for ad_id in rows]
        return index if _rests(self._run.index, fits) else None

    def _embed(self, name: str, directory: Path) -> Embed:
        """How a stage embeds; the same for all stages of a name, so that it is done once for each list of queries."""
        if name not in self._embedders:
            embed = _artifact if (directory / MODEL_NAME).is_file() else partial(_checkpoint, self._run, name)
            self._embedders[name] = _once(partial(embed, directory))
        return self._embedders[name]

    def _through(
        self, index: FrozenIndex, name: str, embed: Embed, selection: Selection, k: int, before: str | None = None
    ) -> Iterator[Stage]:
        """Asked as the service asks, exactly and through the graphs: schedules and negative keywords count in both."""
        yield Stage(name, embed, partial(self._asked, index.exact_search, selection, k), before)
        yield Stage(f"{name}, HNSW", embed, partial(self._asked, index.search, selection, k), name)

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


def _rests(directory: Path, on_the_present: bool) -> bool:
    """Whether a result counts; says so where it does not."""
    if not on_the_present:
        line = f"{directory}: left out, as it does not rest on the present teacher, ads or forerunner"
        console.print(line, markup=False, soft_wrap=True)
    return on_the_present


def _has(artifact: Path) -> bool:
    return (artifact / MANIFEST_NAME).is_file()
