"""What stages cost, kept over commits: `benchmarks/history.jsonl`, a line a stage and run, and a plot of it."""

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from artifacts.errors import HlmError
from artifacts.store import tool_versions
from benchmarks.errors import BenchmarkError
from loadtest.result import machine
from plots import plot
from service.release import Release

HISTORY = "benchmarks/history.jsonl"
LIBRARIES = ("hnswlib", "numpy", "onnxruntime", "orjson", "pydantic", "tokenizers", "uvloop")
COLUMNS = 3
PANEL_IN = (3.6, 2.3)
LEGEND_IN = 0.6
MOST_RUNS = 40
"""In the plot, the latest; more cannot be told apart."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Processor time of a request in one stage, in microseconds; `us` is the median of several rounds."""

    stage: str
    batch_size: int
    us: float
    least_us: float
    most_us: float


def origin(release: Release, top_k: int) -> dict[str, Any]:
    """When, where and of what the costs are."""
    return {
        "date": datetime.now(UTC).replace(microsecond=0).isoformat(),
        "commit": _commit(),
        "machine": machine(),
        "encoder": release.model_version,
        "index": release.index_version,
        "ads": release.ad_index.stats().ad_count,
        "top_k": top_k,
        "versions": {"python": platform.python_version(), **tool_versions(LIBRARIES)},
    }


def lines(run: dict[str, Any], costs: Sequence[Cost]) -> list[str]:
    """One of JSON a stage, each with all that is known of the run."""
    return [json.dumps(run | asdict(cost)) for cost in costs]


def plot_history(history: Path, path: Path) -> None:
    """Draw the costs of each stage over the runs, those alike in machine and artifacts joined, as SVG or PNG.

    Raises:
        BenchmarkError: there is no history to draw.
    """
    runs = _read(history)[-MOST_RUNS:]
    stages = list(dict.fromkeys(cost.stage for run in runs for cost in run.costs))
    rows = -(-len(stages) // COLUMNS)
    path.parent.mkdir(parents=True, exist_ok=True)
    with plot(path, width_in=PANEL_IN[0] * COLUMNS, height_in=PANEL_IN[1] * rows + LEGEND_IN) as figure:
        panels = list(figure.subplots(rows, COLUMNS, sharex=True, squeeze=False).flat)
        for stage, axes in zip(stages, panels, strict=False):
            _draw(axes, stage, runs)
        for axes in panels[len(stages) :]:
            axes.remove()
        figure.supylabel("processor time of a request, µs; hollow: in batches")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left", frameon=False)


@dataclass(slots=True)
class _Run:
    """What one run measured."""

    commit: str
    comparable: str
    """What it has to have in common with another for the two to be compared."""
    costs: list[Cost]


def _draw(axes: Axes, stage: str, runs: Sequence[_Run]) -> None:
    """Medians with their least and most, a line for runs that can be compared."""
    for number, comparable in enumerate(dict.fromkeys(run.comparable for run in runs)):
        found = [
            (place, cost)
            for place, run in enumerate(runs)
            for cost in run.costs
            if run.comparable == comparable and cost.stage == stage
        ]
        for batch_size in sorted({cost.batch_size for _, cost in found}):
            points = [(place, cost) for place, cost in found if cost.batch_size == batch_size]
            alone = batch_size == 1
            axes.errorbar(
                [place for place, _ in points],
                [cost.us for _, cost in points],
                [[cost.us - cost.least_us for _, cost in points], [cost.most_us - cost.us for _, cost in points]],
                fmt="o-" if alone else "o--",
                fillstyle="full" if alone else "none",
                color=f"C{number}",
                markersize=4,
                capsize=2,
                label=comparable if alone else None,
            )
    axes.set_title(stage, loc="left", fontsize=10)
    axes.set_ylim(bottom=0)
    axes.set_xlim(-0.5, len(runs) - 0.5)
    axes.set_xticks(range(len(runs)), [run.commit for run in runs], rotation=90, fontsize=8)


def _read(history: Path) -> list[_Run]:
    """Runs in the order of the file: lines of one date are one run."""
    try:
        found = [json.loads(line) for line in history.read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"{history}: not a history of `make bench`: {error}") from error
    if not found:
        raise BenchmarkError(f"{history}: expected at least one line, found none; `make bench` writes them")
    runs: dict[str, _Run] = {}
    for line in found:
        comparable = f"{line['machine']}; {line['ads']:,} ads, index {line['index']}, encoder {line['encoder']}"
        run = runs.setdefault(line["date"], _Run(line["commit"], comparable, []))
        run.costs.append(Cost(**{field.name: line[field.name] for field in fields(Cost)}))
    return list(runs.values())


def _commit() -> str:
    """The one that is checked out, with + where files differ from it; the history itself always does."""
    commit = _git("rev-parse", "--short=9", "HEAD") or "unknown"
    return commit + ("+" if _git("status", "--porcelain", "--untracked-files=no", "--", f":!{HISTORY}") else "")


def _git(*args: str) -> str:
    return subprocess.run(["git", *args], capture_output=True, text=True, check=False).stdout.strip()


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("history", type=Path)
    parser.add_argument("plot", type=Path, help="SVG or PNG by the ending of its name")
    args = parser.parse_args()
    plot_history(args.history, args.plot)
    print(args.plot)


if __name__ == "__main__":
    try:
        main()
    except HlmError as error:
        sys.exit(f"error: {error}")
