"""Queries for measurements."""

import gzip
from pathlib import Path

from benchmarks.errors import BenchmarkError

SHIPPED = Path(__file__).parent.parent / "export" / "data" / "parity_queries.txt.gz"
"""1,000 real product searches that are part of this program."""


def read_queries(path: Path | None) -> list[str]:
    """The texts of a `query_id<TAB>text` file with a header line, in file order; by default the shipped ones."""
    if path is None:
        return gzip.decompress(SHIPPED.read_bytes()).decode().splitlines()
    lines = path.read_text(encoding="utf-8").splitlines()
    if not lines or lines[0].split("\t") != ["query_id", "text"]:
        raise BenchmarkError(f"{path}: expected the header query_id<TAB>text")
    return [line.split("\t", 1)[1] for line in lines[1:]]
