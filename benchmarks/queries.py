"""Queries for measurements."""

import gzip
from pathlib import Path

from benchmarks.errors import BenchmarkError

SHIPPED = Path(__file__).parent.parent / "export" / "data" / "parity_queries.txt.gz"
"""1,000 real product searches that are part of this program."""


def read_queries(path: Path | None) -> list[str]:
    """The texts in a tab-separated file with a column `text`, gzip or not; by default the shipped ones."""
    if path is None:
        return gzip.decompress(SHIPPED.read_bytes()).decode().splitlines()
    content = path.read_bytes()
    lines = (gzip.decompress(content) if path.suffix == ".gz" else content).decode().splitlines()
    header = lines[0].split("\t") if lines else []
    if "text" not in header:
        raise BenchmarkError(f"{path}: expected a header line with a column text, as in query_id<TAB>text")
    column = header.index("text")
    return [line.split("\t")[column] for line in lines[1:]]
