"""The queries and ad texts on which an export is compared with its original."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from export.source import ExportError

QUERY_COUNT = 1_000
CORPUS_SIZE = 2_500
TOP_K = 100


@dataclass(frozen=True)
class ParityTexts:
    """What the two encoders are compared on."""

    queries: list[str]
    ads: list[str]
    source: str
    """Name of the file that the queries came from."""


def read_texts(queries: Path, corpus: Path) -> ParityTexts:
    """Read the first queries and ad texts, at most as many as parity uses.

    Args:
        queries: one query a line, or a table with a header line, separated by tabs, that has a column `text`.
        corpus: an ad feed (`.jsonl`, of which title and description are used), or one text a line.
            Both may be gzip-compressed (`.gz`).

    Raises:
        ExportError: a file cannot be read, or holds too few texts.
    """
    texts = ParityTexts(_read(queries, QUERY_COUNT), _read(corpus, CORPUS_SIZE), queries.name)
    if not texts.queries:
        raise ExportError(f"{queries}: has no query to measure parity with")
    if len(texts.ads) <= TOP_K:
        raise ExportError(
            f"{corpus}: has {len(texts.ads)} texts where parity searches for {TOP_K} among more than that"
        )
    return texts


def _read(path: Path, limit: int) -> list[str]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            texts = _ad_texts(file) if ".jsonl" in path.suffixes else _lines(file)
            return list(islice(filter(None, texts), limit))
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ExportError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    except (ValueError, LookupError, TypeError) as error:
        raise ExportError(f"{path}: a line is not what its first line or its name promises: {error!r}") from error


def _ad_texts(file: Iterator[str]) -> Iterator[str]:
    for line in file:
        ad = json.loads(line)
        yield f"{ad['title']} {ad.get('description') or ''}".strip()


def _lines(file: Iterator[str]) -> Iterator[str]:
    first = next(file, "").rstrip("\n")
    header = first.split("\t")
    if len(header) > 1 and "text" in header:
        column = header.index("text")
        yield from (line.rstrip("\n").split("\t")[column].strip() for line in file)
    else:
        yield first.strip()
        yield from (line.strip() for line in file)
