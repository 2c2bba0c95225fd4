"""Requests as they once came, from the service's request log (`request_log` in its settings)."""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from loadtest.errors import LoadTestError


class Logged(NamedTuple):
    """A request of the log."""

    at_s: float
    """Seconds after the first."""
    request: dict[str, Any]


def read_log(path: Path, timeout_ms: int) -> list[Logged]:
    """The requests of a log file, or of all of a directory, in the order of their time.

    Args:
        path: NDJSON, or a directory of `*.ndjson`; lines that are not JSON are skipped, as a full disk cuts one off.
        timeout_ms: the budget of each, which the log does not have.

    Raises:
        LoadTestError: it holds no request, or none whose query can be asked again.
    """
    files = sorted(path.glob("*.ndjson")) if path.is_dir() else [path]
    try:
        records = [record for file in files for record in _records(file)]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise LoadTestError(f"{path}: cannot be read as a request log ({reason})") from error
    asked = [record for record in records if "query" in record and "time" in record]
    if records and not asked:
        raise LoadTestError(f"{path}: has no query to ask again; expected a log written with `query_text: text`")
    if not asked:
        raise LoadTestError(f"{path}: holds no request")
    timed = sorted(((_seconds(record["time"], path), record) for record in asked), key=lambda pair: pair[0])
    first_s = timed[0][0]
    return [Logged(at_s - first_s, _request(record, timeout_ms)) for at_s, record in timed]


def _records(file: Path) -> Iterator[dict[str, Any]]:
    for line in file.read_text().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            yield record


def _seconds(text: Any, path: Path) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except (TypeError, ValueError) as error:
        raise LoadTestError(f"{path}: {text!r} is no time such as 2026-11-23T14:01:38.920Z") from error


def _request(record: dict[str, Any], timeout_ms: int) -> dict[str, Any]:
    filters = {"filters": record["filters"]} if record.get("filters") else {}
    return {"query": record["query"], "top_k": record.get("top_k", 100), "timeout_ms": timeout_ms, **filters}
