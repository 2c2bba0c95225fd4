"""What is kept of a build beside the index: its summary, and a plot of recall against the time of a search.

The only module of the room that needs matplotlib.
"""

import io
from pathlib import Path

from rich.console import Console

from artifacts.manifest import IndexManifest, SegmentEntry
from index.build import BuildResult
from index.errors import ReportError
from index.report import build_table

try:
    from matplotlib.axes import Axes

    from plots import plot
except ImportError as error:
    raise ReportError(
        f"a build report needs the package matplotlib, of the extra `offline` of hlm-retrieval: {error}"
    ) from error

REPORT = "report.md"
PLOT = "recall.svg"
REPORT_COLUMNS = 120
MAX_LINES = 8
"""The largest segments; more lines cannot be told apart."""


def write_report(result: BuildResult, directory: Path) -> None:
    """Write `report.md`, and `recall.svg` where there is a graph.

    Raises:
        ReportError: nothing can be written there.
    """
    manifest = result.manifest
    summary = io.StringIO()
    Console(file=summary, width=REPORT_COLUMNS).print(build_table(result))
    parts = [f"# Index {manifest.index_version}"]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if any(segment.curve for segment in manifest.segments):
            plot_recall(manifest, directory / PLOT)
            parts.append(f"![ann_recall against the time of a search]({PLOT})")
        parts.append(f"```\n{summary.getvalue()}```")
        (directory / REPORT).write_text("\n\n".join(parts) + "\n")
    except OSError as error:
        raise ReportError(f"{directory}: cannot be written ({error.strerror})") from error


def plot_recall(manifest: IndexManifest, path: Path) -> None:
    """Write the plot, as SVG or PNG by the name's ending; the segments must have a graph among them."""
    graphs = sorted((one for one in manifest.segments if one.curve), key=lambda one: -one.ad_count)
    with plot(path) as figure:
        axes = figure.add_subplot()
        for segment in graphs[:MAX_LINES]:
            _draw(axes, segment)
        axes.axhline(manifest.recall.target, color="#555555", linewidth=1, linestyle="--", zorder=1)
        axes.annotate(
            f"asked for: {manifest.recall.target:g}",
            (1, manifest.recall.target),
            (-4, -4),
            xycoords=axes.get_yaxis_transform(),
            textcoords="offset points",
            ha="right",
            va="top",
            color="#555555",
        )
        axes.set_xlabel("median time of a search on one core, µs")
        axes.set_ylabel(f"ann_recall@{manifest.recall.k}")
        axes.set_xlim(left=0)
        axes.set_title(_title(manifest, len(graphs)), loc="left")
        axes.legend(loc="lower right", frameon=False, title="in a ring: the ef_search chosen")


def _draw(axes: Axes, segment: SegmentEntry) -> None:
    """A line through what was tried, with a ring around what was chosen."""
    points = sorted(segment.curve, key=lambda point: point.ef_search)
    times, recalls = [point.search_us for point in points], [point.ann_recall for point in points]
    label = f"{segment.name}: {segment.ad_count:,} ads, ef_search {segment.ef_search}"
    [line] = axes.plot(times, recalls, marker="o", markersize=3.5, label=label)
    chosen = next(point for point in points if point.ef_search == segment.ef_search)
    axes.plot(chosen.search_us, chosen.ann_recall, "o", markersize=10, fillstyle="none", color=line.get_color())


def _title(manifest: IndexManifest, graphs: int) -> str:
    left_out = f", the largest {MAX_LINES} of {graphs} graphs" if graphs > MAX_LINES else ""
    return (
        f"{manifest.index_version}: {manifest.recall.query_count:,} queries ({manifest.recall.query_source}){left_out}"
    )
