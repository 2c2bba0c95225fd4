"""What an export was asked for, and the fingerprint by which a second one finds that it has nothing to do."""

from dataclasses import asdict, dataclass
from pathlib import Path

from artifacts.manifest import Precision
from artifacts.store import file_sha256, fingerprint
from export.source import ExportError, Source

EXPORT_VERSION = 4
"""Raised whenever the same checkpoint and options would give another artifact."""

DEFAULT_QUERIES = Path(__file__).parent / "data" / "parity_queries.txt.gz"
DEFAULT_CORPUS = Path(__file__).parent / "data" / "parity_titles.txt.gz"

MIN_OVERLAP: dict[Precision, float] = {"fp32": 0.99, "fp16": 0.98, "int8": 0.9}
"""Default bound on the overlap of the exact top 100; all-MiniLM-L6-v2 reaches 1.000, 0.999 and 0.938."""


@dataclass(frozen=True)
class ExportOptions:
    """Everything besides the checkpoint that decides what an artifact looks like."""

    precision: Precision
    max_query_tokens: int
    max_ad_tokens: int
    min_overlap: float
    """Least overlap of the exact top 100 with the original's, 0 to 1."""
    queries: Path
    """What parity is measured with: one query a line, or a table with a column `text`."""
    corpus: Path
    """What parity searches: an ad feed, or one text a line."""
    for_tensorrt: bool = False
    """Whether the graph is one that TensorRT can run whole."""


def export_fingerprint(source: Source, options: ExportOptions) -> str:
    """Hash of the checkpoint's files, the options and the version of this code.

    Raises:
        ExportError: the queries or the corpus cannot be read.
    """
    parts = asdict(options) | {"files": source.files, "revision": source.revision, "export_version": EXPORT_VERSION}
    if not options.for_tensorrt:  # came later: what was exported before is what would be exported now
        del parts["for_tensorrt"]
    for name, path in (("queries", options.queries), ("corpus", options.corpus)):
        try:
            parts[name] = file_sha256(path)
        except OSError as error:
            raise ExportError(
                f"{path}: cannot be read ({error.strerror}); expected {name} to measure parity"
            ) from error
    return fingerprint(parts)
