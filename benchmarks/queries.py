"""Queries for measurements."""

from pathlib import Path

from benchmarks.errors import BenchmarkError


def read_queries(path: Path) -> list[str]:
    """The texts of a `query_id<TAB>text` file with a header line, in file order."""
    lines = path.read_text(encoding="utf-8").splitlines()
    if not lines or lines[0].split("\t") != ["query_id", "text"]:
        raise BenchmarkError(f"{path}: expected the header query_id<TAB>text")
    return [line.split("\t", 1)[1] for line in lines[1:]]
