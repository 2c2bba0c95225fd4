"""The results of a comparison as a part of docs/benchmarks.md, with a plot beside it: nothing is typed by hand."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from artifacts.errors import HlmError
from benchmarks.errors import BenchmarkError
from benchmarks.peers.measure import CLIENTS
from benchmarks.peers.peers import OURS, SHORT
from benchmarks.peers.report import BOTH_CORES, ONE_CORE, medians, render
from benchmarks.peers.results import Run, read_runs
from plots import plot

PAGE = Path("docs/benchmarks.md")
PLOT = "plots/peers.svg"
BEGIN, END = "<!-- peers: written by `make publish-peers` -->", "<!-- /peers -->"


def insert(page: str, part: str) -> str:
    """A page with the part between its two marks replaced.

    Raises:
        BenchmarkError: it has no such marks.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise BenchmarkError(f"the page lacks a line {BEGIN} or, after it, a line {END}")
    return f"{before}{BEGIN}\n\n{part}\n\n{END}{after}"


def draw(runs: Sequence[Run], path: Path) -> None:
    """Throughput over clients on one core, and capacities on one core and on both."""
    with plot(path, width_in=11, height_in=4.5) as figure:
        left, right = figure.subplots(1, 2)
        _draw_throughput(left, runs)
        _draw_capacities(right, runs)


def _draw_throughput(axes: Axes, runs: Sequence[Run]) -> None:
    for peer, figures in medians(runs, ONE_CORE).items():
        if peer != SHORT:
            values = [figures[f"qps_{clients}"] for clients in CLIENTS]
            axes.plot(CLIENTS, values, "o-", label=peer, linewidth=3 if peer == OURS else 1.5, markersize=4)
    axes.set_xscale("log", base=2)
    axes.set_xticks(CLIENTS, [str(clients) for clients in CLIENTS])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("closed-loop clients")
    axes.set_title("answers a second, one core", loc="left", fontsize=10)
    axes.legend(frameon=False, fontsize=8)


def _draw_capacities(axes: Axes, runs: Sequence[Run]) -> None:
    one, both = ({p: f for p, f in medians(runs, seat).items() if p != SHORT} for seat in (ONE_CORE, BOTH_CORES))
    places = range(len(one))
    for offset, found, label in ((-0.2, one, ONE_CORE), (0.2, both, f"{BOTH_CORES}, shared with the generator")):
        values = [found.get(peer, {}).get("capacity", 0.0) for peer in one]
        bars = axes.barh([place + offset for place in places], values, height=0.38, label=label)
        axes.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8)
    axes.set_yticks(places, one)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_title("capacity at p99 ≤ 25 ms, Poisson arrivals a second", loc="left", fontsize=10)
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=2)


def main() -> None:
    """Write the part and the plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, help="as `python -m benchmarks.peers --results` keeps them")
    args = parser.parse_args()
    runs = read_runs(args.results)
    draw(runs, PAGE.parent / PLOT)
    plotted = f"![Throughput and capacity of all servers]({PLOT})"
    PAGE.write_text(insert(PAGE.read_text(), f"{render(runs)}\n\n{plotted}"))


if __name__ == "__main__":
    try:
        main()
    except HlmError as error:
        sys.exit(f"error: {error}")
