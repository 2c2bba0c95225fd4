"""The ways from query texts to ads that a recipe's results allow, from the teacher to what is served.

Each differs from another in one thing, so that losses come apart: the teacher and each student search exactly in
PyTorch; an exported encoder searches exactly, then through the index, then through it with filters.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from artifacts.manifest import MANIFEST_NAME, EncoderManifest
from artifacts.space import EmbeddingSpace
from artifacts.store import load_manifest
from index.embed import embed_queries
from index.exact import exact_top_k
from index.filters import NO_FILTERS, Filters, Wanted
from index.load import load_index
from service.encoder import MODEL_NAME, Encoder
from terminal import console
from train.data import Inventory
from train.embeddings import read_embeddings
from train.encoders import Embeddings, embed_all, load_encoder
from train.runs import CheckpointManifest, Run

NO_AD = -1
"""Row where the index found fewer ads than were asked for."""

Embed = Callable[[Sequence[str]], Embeddings]
Search = Callable[[Embeddings], NDArray[np.int64]]


@dataclass(frozen=True)
class Stage:
    """A way from query texts to rows of ads."""

    name: str
    embed: Embed
    search: Search


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

    def __init__(self, run: Run, inventory: Inventory, space: EmbeddingSpace) -> None:
        self._run, self._inventory, self._space = run, inventory, space
        self._ads = read_embeddings(run.ads)
        self._joint_ads = read_embeddings(run.joint_ads) if _has(run.joint_ads) else None
        self._embedders: dict[str, Embed] = {}
        self._index = load_index(run.index) if _has(run.index) else None

    @property
    def has_index(self) -> bool:
        """Whether the release has been made."""
        return self._index is not None

    def unfiltered(self, k: int) -> Iterator[Stage]:
        """The teacher first, then each student as far as it has come, then what is exported."""
        exact = partial(exact_rows, self._ads, every_ad(self._inventory), k)
        for name, directory in self._checkpoints():
            yield Stage(name, self._embed(name, directory), exact)
        if self._joint_ads is not None:
            among = partial(exact_rows, self._joint_ads, every_ad(self._inventory), k)
            yield Stage("joint", self._embed("joint", self._run.joint), among)
        for name, directory in self._exports():
            yield Stage(name, self._embed(name, directory), exact)
            if self._index is not None:
                through = partial(self._approximate, every_ad(self._inventory), k)
                yield Stage(f"{name}, HNSW", self._embed(name, directory), through)

    def filtered(self, selection: Selection, k: int) -> Iterator[Stage]:
        """The teacher, and what is exported, among some of the ads: exactly, and through the index with a filter."""
        exact, through = partial(exact_rows, self._ads, selection, k), partial(self._approximate, selection, k)
        yield Stage("teacher", self._embed("teacher", self._run.teacher), exact)
        for name, directory in self._exports():
            yield Stage(name, self._embed(name, directory), exact)
            yield Stage(f"{name}, HNSW", self._embed(name, directory), through)

    def _checkpoints(self) -> Iterator[tuple[str, Path]]:
        run = self._run
        yield "teacher", run.teacher
        found: list[tuple[str, Path]] = []
        for student in run.recipe.students:
            found.append((f"{student.name}, aligned", run.aligned(student.name)))
            found.append((f"{student.name}, refined", run.refined(student.name)))
        for name, directory in found:
            if _has(directory):
                if load_manifest(directory, CheckpointManifest).space == self._space:
                    yield name, directory
                else:
                    _leave_out(directory)

    def _exports(self) -> Iterator[tuple[str, Path]]:
        for name, precision in self._run.exports:
            directory = self._run.exported(name, precision)
            if _has(directory):
                if load_manifest(directory, EncoderManifest).space == self._space:
                    yield f"{name}, {precision}", directory
                else:
                    _leave_out(directory)

    def _embed(self, name: str, directory: Path) -> Embed:
        """How a stage embeds; the same for all stages of a name, so that it is done once for each list of queries."""
        if name not in self._embedders:
            embed = _artifact if (directory / MODEL_NAME).is_file() else partial(_checkpoint, self._run, name)
            self._embedders[name] = _once(partial(embed, directory))
        return self._embedders[name]

    def _approximate(self, selection: Selection, k: int, embeddings: Embeddings) -> NDArray[np.int64]:
        assert self._index is not None
        rows = np.full((len(embeddings), k), NO_AD)
        wanted = [Wanted(k, selection.filters)] * len(embeddings)
        for found, hits in zip(rows, self._index.search(embeddings, wanted), strict=True):
            found[: len(hits.ad_ids)] = [self._inventory.rows[ad_id] for ad_id in hits.ad_ids]
        return rows


def exact_rows(ads: Embeddings, selection: Selection, k: int, embeddings: Embeddings) -> NDArray[np.int64]:
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


def _leave_out(directory: Path) -> None:
    console.print(f"{directory}: left out, as it is of an earlier teacher", markup=False, soft_wrap=True)


def _has(artifact: Path) -> bool:
    return (artifact / MANIFEST_NAME).is_file()
