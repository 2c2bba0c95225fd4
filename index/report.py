"""What the commands show of an index, on standard output."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.table import Table

from artifacts.manifest import Backend, IndexManifest, RecallReport
from index.build import BuildResult
from index.layout import ADS, ELIGIBILITY, SEGMENTS, VECTORS
from index.measure import Measured
from index.segment import dead_count

_NUMBERS: dict[Backend, str] = {"hnswlib": "float32 in graphs of hnswlib", "faiss": "float16 in graphs of faiss"}


def show_build(result: BuildResult, out: Path) -> None:
    """The short summary that ends a build."""
    if not result.seconds:
        Console().print(f"{out}: up to date ({result.manifest.index_version})", soft_wrap=True, highlight=False)
        return
    Console().print(build_table(result))


def build_table(result: BuildResult) -> Table:
    """What a build made, and how long it took."""
    table = _table(f"Index {result.manifest.index_version}")
    _add_feed(table, result.manifest)
    _add_segments(table, result.manifest)
    _add_recall(table, result.manifest.recall)
    table.add_row("size", _size(sum(entry.bytes for entry in result.manifest.files.values())))
    if result.seconds:
        table.add_row("seconds", ", ".join(f"{name} {seconds:.1f}" for name, seconds in result.seconds.items()))
    return table


def show_index(manifest: IndexManifest, directory: Path, *, last_sequence: int | None = None) -> None:
    """Everything of interest in an index that lies in a directory.

    Args:
        manifest: of the index.
        directory: where it lies.
        last_sequence: number of the last change in its record, if it has one.
    """
    table = _table(f"Index {manifest.index_version} in {directory}")
    age = datetime.now(UTC) - manifest.created_at
    table.add_row("created", f"{manifest.created_at:%Y-%m-%d %H:%M:%S %Z}, {_hours(age)} ago")
    if last_sequence is not None:
        left = last_sequence - manifest.sequence
        table.add_row("changes", f"up to number {manifest.sequence:,}, of {last_sequence:,}; {left:,} came since")
    table.add_row("embeddings by", manifest.model_version or "precomputed")
    space = manifest.space
    table.add_row("embedding space", f"{space.space_id}: {space.teacher}, dim {space.dim}, {space.pooling}")
    table.add_row("vectors", f"dim {manifest.dim}, {_NUMBERS[manifest.backend]}")
    _add_feed(table, manifest)
    _add_segments(table, manifest, directory)
    table.add_row("graph", f"M {manifest.hnsw.M}, ef_construction {manifest.hnsw.ef_construction}")
    _add_recall(table, manifest.recall)
    parts = (("columns", ADS), ("eligibility", ELIGIBILITY), ("vectors", VECTORS), ("segments", SEGMENTS))
    for label, prefix in parts:
        total = sum(entry.bytes for name, entry in manifest.files.items() if name.startswith(prefix))
        table.add_row(f"size of {label}", _size(total))
    table.add_row("made with", ", ".join(f"{name} {version}" for name, version in manifest.tools.items()))
    Console().print(table)


def show_measured(manifest: IndexManifest, measured: Sequence[Measured], directory: Path) -> None:
    """What a verification found; the files are whole, or it would have found nothing."""
    table = Table(title=f"Index {manifest.index_version} in {directory}: {len(manifest.files)} files are whole")
    table.title_justify = "left"
    for heading in ("segment", "ads", "ef_search", f"ann_recall@{manifest.recall.k}", "when tuned", "us a query"):
        table.add_column(heading, justify="left" if heading == "segment" else "right")
    for one in measured:
        point = one.point
        figures = (f"{point.ann_recall:.4f}", f"{one.entry.ann_recall:.4f}", f"{point.search_us:.0f}")
        table.add_row(one.entry.name, f"{one.entry.ad_count:,}", str(point.ef_search), *figures)
    Console().print(table)


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    return table


def _add_feed(table: Table, manifest: IndexManifest) -> None:
    feed = manifest.feed
    table.add_row("ads", f"{manifest.ad_count:,}")
    table.add_row(
        "feed", f"{feed.name}: {feed.lines:,} lines, {feed.ads:,} ads, {feed.not_active:,} of them not active"
    )
    for reason, count in feed.skipped.items():
        table.add_row("left out", f"{count:,}: {reason}")


def _add_recall(table: Table, recall: RecallReport) -> None:
    table.add_row(f"ann_recall@{recall.k}", f"{recall.ann_recall:.4f}, asked for {recall.target}")
    table.add_row(
        "queries", f"{recall.query_count:,}: {recall.query_source}" if recall.query_count else recall.query_source
    )


def _add_segments(table: Table, manifest: IndexManifest, directory: Path | None = None) -> None:
    """A line for each; with the tombstones in its graph, where they can be looked up."""
    for segment in manifest.segments:
        chosen = next((point for point in segment.curve if point.ef_search == segment.ef_search), None)
        how = "scanned exactly"
        if chosen is not None:
            how = (
                f"graph, ann_recall {chosen.ann_recall:.4f} at ef_search {chosen.ef_search},"
                f" median {chosen.search_us:.0f} us a query on one core"
            )
        dead = dead_count(directory / SEGMENTS / segment.name) if directory else 0
        tombstones = f" and {dead:,} tombstones" if dead else ""
        table.add_row(f"segment {segment.name}", f"{segment.ad_count:,} ads{tombstones}, {how}")


def _hours(age: timedelta) -> str:
    hours = age.total_seconds() / 3600
    return f"{hours:,.1f} hours" if hours < 48 else f"{hours / 24:,.0f} days"


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
