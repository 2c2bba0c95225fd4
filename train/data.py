"""Ads, labelled queries and unlabelled ones, from files to rows and texts."""

import gzip
import math
import random
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from client.trec import Qrels, read_qrels, read_queries, read_texts
from index.feed import FeedAd, FeedReader
from train.errors import TrainError
from train.recipe import Data

FEED_NAME = "ads.jsonl.gz"
RELEVANT_GRADE = 2
"""What the query asks for, as anything above it; 1 is partly right, and 0 wrong by judgment."""


@dataclass(frozen=True)
class Inventory:
    """All ads of a recipe; row i of their embeddings is ad i."""

    rows: dict[str, int]
    """By ad_id."""
    texts: list[str]
    lines: list[bytes]
    """Each ad as a line of a feed."""
    active: list[int]
    """Rows of the ads whose status lets them be shown; the others are embedded, since that may change."""
    left_out: Counter[str]
    """Lines of the feeds that say no ad, by reason."""

    def titles(self) -> dict[str, str]:
        """Title of each ad, by ad_id, read anew: few ask for it, and held beside the texts it would take memory."""
        return {ad["ad_id"]: ad["title"] for ad in map(orjson.loads, self.lines)}


@dataclass(frozen=True)
class LabelledQueries:
    """Queries with graded ads; ads that the inventory lacks are left out."""

    query_ids: list[str]
    texts: list[str]
    grades: list[dict[int, int]]
    """By ad row, for each query."""

    def rows_of_grade(self, query: int, least: int, most: float = math.inf) -> list[int]:
        """Rows of a query's ads with a grade between the two, in the order of the file."""
        return [row for row, grade in self.grades[query].items() if least <= grade <= most]

    def among(self, rows: NDArray[np.int64]) -> "LabelledQueries":
        """The same queries with what is known of some rows alone; a query may be left without any."""
        chosen = set(rows.tolist())
        grades = [{row: grade for row, grade in judged.items() if row in chosen} for judged in self.grades]
        return LabelledQueries(self.query_ids, self.texts, grades)

    def followed_by(self, others: "LabelledQueries") -> "LabelledQueries":
        """These queries and then others, whose positions begin where these end."""
        return LabelledQueries(
            self.query_ids + others.query_ids, self.texts + others.texts, self.grades + others.grades
        )


@dataclass(frozen=True)
class Pair:
    """A query, by its position, and the row of an ad that it asks for."""

    query: int
    row: int


def read_inventory(data: Data) -> Inventory:
    """Read the ads of every set and feed, each ad_id once, with what is added to their texts.

    Raises:
        HlmError: a file cannot be read.
    """
    feeds = [directory / FEED_NAME for directory in dict.fromkeys([*data.train, *data.dev])] + data.more_ads
    expansions = read_texts(data.ad_expansions, "ad_id") if data.ad_expansions else {}
    inventory = Inventory({}, [], [], [], Counter())
    for feed in feeds:
        for _, ad in (reader := FeedReader(feed)):
            if ad.ad_id not in inventory.rows:
                inventory.rows[ad.ad_id] = row = len(inventory.texts)
                inventory.texts.append(f"{ad_text(ad)} {expansions.get(ad.ad_id, '')}".strip())
                inventory.lines.append(orjson.dumps(ad.model_dump(mode="json", exclude_none=True)) + b"\n")
                if ad.is_active:
                    inventory.active.append(row)
        inventory.left_out.update(reader.skipped)
    return inventory


def ad_text(ad: FeedAd) -> str:
    """What an encoder reads of an ad, as `index.embed.ad_texts` has it."""
    return f"{ad.title} {ad.description or ''}".strip()


def read_split(directories: Sequence[Path], split: str, inventory: Inventory) -> LabelledQueries:
    """Read a split, `train` or `dev`, of some labelled sets as one.

    Raises:
        HlmError: a file cannot be read, a query_id is in two sets, or nothing is left to use.
    """
    texts: dict[str, str] = {}
    qrels: Qrels = {}
    for directory in directories:
        queries = read_queries(directory / f"queries.{split}.tsv")
        if twice := texts.keys() & queries.keys():
            raise TrainError(f"{directory}: query_id {min(twice)} is in another set too; expected each once")
        texts |= queries
        qrels |= read_qrels(directory / f"qrels.{split}.tsv")
    labelled = label(texts, qrels, inventory)
    if not labelled.texts:
        raise TrainError(f"{', '.join(map(str, directories))}: no query of the {split} split has a judged ad")
    return labelled


def read_lessons(data: Data, inventory: Inventory) -> LabelledQueries:
    """Read what teaches: the train splits, in which queries that read alike are one.

    It has the judgments of all, the better where they differ. Apart, each would be pushed away from the other and from
    the ads that only the other is known to ask for.

    Raises:
        HlmError: as `read_split`.
    """
    labelled = read_split(data.train, "train", inventory)
    merged: dict[str, int] = {}
    lessons = LabelledQueries([], [], [])
    for query_id, text, grades in zip(labelled.query_ids, labelled.texts, labelled.grades, strict=True):
        position = merged.setdefault(as_read(text), len(lessons.texts))
        if position == len(lessons.texts):
            lessons.query_ids.append(query_id)
            lessons.texts.append(text)
            lessons.grades.append(dict(grades))
            continue
        for row, grade in grades.items():
            lessons.grades[position][row] = max(grade, lessons.grades[position].get(row, 0))
    return lessons


def dev_queries(data: Data) -> list[Path]:
    """Files of the queries that measure."""
    return [directory / "queries.dev.tsv" for directory in data.dev]


def label(texts: Mapping[str, str], qrels: Qrels, inventory: Inventory) -> LabelledQueries:
    """Join queries and judgments over the ads of an inventory."""
    labelled = LabelledQueries([], [], [])
    for query_id, text in texts.items():
        grades = {
            inventory.rows[ad_id]: grade for ad_id, grade in qrels.get(query_id, {}).items() if ad_id in inventory.rows
        }
        if grades:
            labelled.query_ids.append(query_id)
            labelled.texts.append(text)
            labelled.grades.append(grades)
    return labelled


def as_read(text: str) -> str:
    """A text without what makes no other query of it: case, compatibility forms and double spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def word_key(text: str) -> str:
    """What makes two queries one to a check: the same words, as they read, in any order."""
    return " ".join(sorted(as_read(text).split()))


def relevant_pairs(labelled: LabelledQueries) -> list[Pair]:
    """Every query with every ad that it asks for.

    Raises:
        TrainError: there is none.
    """
    pairs = [
        Pair(query, row)
        for query in range(len(labelled.texts))
        for row in labelled.rows_of_grade(query, RELEVANT_GRADE)
    ]
    if not pairs:
        raise TrainError(
            f"no query has an ad of grade {RELEVANT_GRADE}, which is what contrastive training learns from"
        )
    return pairs


def plan_pair_batches(pairs: Sequence[Pair], batch_size: int, epochs: float, seed: int) -> list[list[Pair]]:
    """Batches in which no query and no ad comes twice, since one would be the other's false negative.

    A pair that does not fit waits for the next batch. What is left over at the end of an epoch makes no batch.
    """
    steps = int(epochs * len(pairs) / batch_size)
    batches: list[list[Pair]] = []
    epoch = 0
    while len(batches) < steps:
        batches += _batches_of_an_epoch(pairs, batch_size, random.Random(f"{seed}/{epoch}"))  # noqa: S311
        epoch += 1
        if not batches:
            raise TrainError(f"no {batch_size} pairs differ in query and ad; expected a smaller batch_size")
    return batches[:steps]


def _batches_of_an_epoch(pairs: Sequence[Pair], batch_size: int, chance: random.Random) -> list[list[Pair]]:
    waiting = chance.sample(pairs, len(pairs))
    batches: list[list[Pair]] = []
    while True:
        batch: list[Pair] = []
        left: list[Pair] = []
        queries: set[int] = set()
        rows: set[int] = set()
        for position, pair in enumerate(waiting):
            if len(batch) == batch_size:
                left += waiting[position:]
                break
            if pair.query in queries or pair.row in rows:
                left.append(pair)
                continue
            batch.append(pair)
            queries.add(pair.query)
            rows.add(pair.row)
        if len(batch) < batch_size:
            return batches
        batches.append(batch)
        waiting = left


def read_unlabelled(path: Path) -> list[tuple[str, str]]:
    """Distinct queries, each with its source, in the order of the file; empty ones are left out.

    Two that an encoder reads as one, by case, compatibility forms or spaces, are one, and the first stands: else a
    query that is held out could be learnt from in another spelling.

    Raises:
        TrainError: the file cannot be read or lacks the columns.
    """
    found: dict[str, tuple[str, str]] = {}
    for text, source in unlabelled_lines(path):
        found.setdefault(as_read(text), (text, source))
    found.pop("", None)
    return list(found.values())


def unlabelled_lines(path: Path) -> list[tuple[str, str]]:
    """Every line's query and source: `text` and `source` under a header line.

    Raises:
        TrainError: the file cannot be read or lacks the columns.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            header = file.readline().rstrip("\n").split("\t")
            columns = header.index("text"), header.index("source")
            fields = (line.rstrip("\n").split("\t") for line in file)
            return [(row[columns[0]].strip(), row[columns[1]]) for row in fields]
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise TrainError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    except (ValueError, IndexError) as error:
        raise TrainError(
            f"{path}: expected the columns text and source under a header line, each on every line"
        ) from error


def weigh(source: str, weights: Mapping[str, float]) -> float:
    """Weight of a source: that of the longest key which its name begins with, 1 without one."""
    fitting = [key for key in weights if source.startswith(key)]
    return weights[max(fitting, key=len)] if fitting else 1.0


def plan_query_batches(weights: Sequence[float], batch_size: int, epochs: float, seed: int) -> list[list[int]]:
    """Batches of positions, of which i comes `weights[i]` times an epoch, by chance where that is no whole number."""
    steps = int(epochs * sum(weights) / batch_size)
    stream: list[int] = []
    epoch = 0
    while len(stream) < steps * batch_size:
        chance = random.Random(f"{seed}/{epoch}")  # noqa: S311 - seeded on purpose, nothing secret
        times = [int(weight) + (chance.random() < weight % 1) for weight in weights]
        order = [position for position, count in enumerate(times) for _ in range(count)]
        chance.shuffle(order)
        stream += order
        epoch += 1
    return [stream[start : start + batch_size] for start in range(0, steps * batch_size, batch_size)]
