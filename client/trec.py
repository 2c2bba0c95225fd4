"""Queries and judgments from tab-separated files: a header line, then one record a line, with no quoting."""

from collections.abc import Iterator
from pathlib import Path

from client.errors import ClientError

QREL_COLUMNS = ("query_id", "ad_id", "grade")
"""Further columns, such as the source's own grade, are ignored."""

Qrels = dict[str, dict[str, int]]
"""Grade of each judged ad, by query_id and ad_id."""


def read_queries(path: Path) -> dict[str, str]:
    """Text of each query by query_id; see `read_texts`."""
    return read_texts(path, "query_id")


def read_texts(path: Path, id_column: str) -> dict[str, str]:
    """Text by id, in the order of the file.

    Raises:
        ClientError: the file cannot be read or a line is wrong; the message names file and line.
    """
    texts: dict[str, str] = {}
    for where, (text_id, text) in _records(path, (id_column, "text")):
        if text_id in texts:
            raise ClientError(f"{where}: {id_column} {text_id} came before; expected each once")
        texts[text_id] = text
    return texts


def read_qrels(path: Path) -> Qrels:
    """Grades of the judged ads of each query.

    Raises:
        ClientError: the file cannot be read or a line is wrong; the message names file and line.
    """
    qrels: Qrels = {}
    for where, (query_id, ad_id, grade) in _records(path, QREL_COLUMNS):
        grades = qrels.setdefault(query_id, {})
        if ad_id in grades:
            raise ClientError(f"{where}: query {query_id} and ad {ad_id} came before; expected one grade a pair")
        if not (grade.isascii() and grade.isdigit()):
            raise ClientError(f"{where}: expected a grade of 0 or above, found {grade!r}")
        grades[ad_id] = int(grade)
    return qrels


def _records(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    """Yield `file:line` and the values of `columns`, which must come first and not be blank."""
    number = 0
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                values = line.rstrip("\r\n").split("\t")
                if number == 1:
                    _check_header(path, columns, values)
                    continue
                if len(values) < len(columns) or not all(value.strip() for value in values[: len(columns)]):
                    raise ClientError(
                        f"{path}:{number}: expected {' <tab> '.join(columns)}, found {line.strip()[:80]!r}"
                    )
                yield f"{path}:{number}", values[: len(columns)]
    except UnicodeDecodeError as error:
        raise ClientError(f"{path}: not UTF-8 somewhere after line {number} ({error.reason})") from error
    except OSError as error:
        raise ClientError(f"{path}: cannot be read ({error.strerror})") from error
    if number == 0:
        raise ClientError(f"{path}: is empty; expected a header line with {' <tab> '.join(columns)}")


def _check_header(path: Path, columns: tuple[str, ...], found: list[str]) -> None:
    if tuple(found[: len(columns)]) != columns:
        header = " <tab> ".join(found)[:80]
        raise ClientError(f"{path}:1: expected a header line beginning {' <tab> '.join(columns)}, found {header!r}")
