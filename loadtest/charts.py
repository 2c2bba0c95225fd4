"""The figures of a report, drawn by matplotlib."""

from collections.abc import Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from loadtest.recorder import STAGES
from loadtest.result import Phase, Result

BLUE, ORANGE, GREEN, RED, GREY, VIOLET = "#2563eb", "#ea580c", "#16a34a", "#dc2626", "#6b7280", "#7c3aed"
PARTS = {"tokenize": GREEN, "queue": ORANGE, "encode": BLUE, "search": VIOLET, "rest of the server": "#94a3b8"}
WIDTH_IN = 9.2
MOST_SHOWN = 6
"""Of histograms in one figure; more hide each other."""


def charts(result: Result) -> dict[str, Figure]:
    """By file name, those that the result has something for."""
    drawn = {
        "latency-against-rate": against_rate(result),
        "over-time": over_time(result),
        "histogram": histogram(result.phases),
        "stages": stages(result.phases),
    }
    return {name: figure for name, figure in drawn.items() if figure}


def against_rate(result: Result) -> Figure | None:
    """Percentiles of open-loop phases over the rate that was offered; None with fewer than two."""
    phases = sorted((phase for phase in result.phases if phase.open_loop), key=lambda phase: phase.offered_qps)
    if len(phases) < 2:
        return None
    figure, (axes,) = _figure(3.6)
    for name, colour in (("p50", GREEN), ("p90", BLUE), ("p99", RED)):
        values = [phase.latency_ms[name] or float("nan") for phase in phases]
        axes.plot([phase.offered_qps for phase in phases], values, "o-", color=colour, label=name, markersize=4)
    failing = [phase for phase in phases if phase.error_share > 0.001]
    for phase in failing:
        axes.axvline(phase.offered_qps, color=RED, alpha=0.15, linewidth=6, label=_once(axes, "over 0.1 % errors"))
    found = result.capacity
    if found and found.rate:
        axes.axvline(found.rate, color=GREY, linestyle="--", label=f"capacity {found.rate:,.0f}/s ({found.bound})")
    if found and found.knee_rate:
        axes.axvline(found.knee_rate, color=GREY, linestyle=":", label=f"knee {found.knee_rate:,.0f}/s")
    _logarithmic(axes, "y")
    axes.set_xlim(left=0)
    _label(axes, "offered, requests a second", "latency, ms")
    return figure


def over_time(result: Result) -> Figure | None:
    """Percentiles, rates and errors second by second, with events marked; None where nothing came back."""
    seconds = result.timeline
    if not seconds:
        return None
    figure, (above, below) = _figure(5.0, rows=2)
    at_s = [second.at_s for second in seconds]
    for name, colour in (("p50_ms", GREEN), ("p99_ms", RED)):
        values = [getattr(second, name) or float("nan") for second in seconds]
        above.plot(at_s, values, color=colour, label=name.removesuffix("_ms"), linewidth=1.4)
    _logarithmic(above, "y")
    below.step(at_s, [second.offered for second in seconds], where="mid", color=GREY, label="offered")
    below.step(at_s, [second.achieved for second in seconds], where="mid", color=BLUE, label="achieved")
    below.bar(at_s, [second.errors for second in seconds], color=RED, width=1.0, label="errors")
    below.set_ylim(bottom=0)
    for axes in (above, below):
        for event in result.events:
            axes.axvline(event.at_s, color=VIOLET, linestyle="--", linewidth=1)
    for event in result.events:
        above.annotate(event.name, (event.at_s, 1), (3, -3), ("data", "axes fraction"), "offset points", **_NOTE)
    _label(above, "", "latency, ms")
    _label(below, "seconds since the start", "requests a second")
    return figure


def histogram(phases: Sequence[Phase]) -> Figure | None:
    """How often which latency was met; None where nothing was answered."""
    answered = [phase for phase in phases if phase.histogram.counts]
    if not answered:
        return None
    figure, (axes,) = _figure(3.2)
    for phase in answered[:: max(1, -(-len(answered) // MOST_SHOWN))]:
        total = sum(phase.histogram.counts)
        shares = [100 * count / total for count in phase.histogram.counts]
        axes.stairs(shares, phase.histogram.edges_ms, label=phase.name, linewidth=1.4, fill=len(answered) == 1)
    _logarithmic(axes, "x")
    axes.set_ylim(bottom=0)
    _label(axes, "latency, ms", "% of the answers")
    return figure


def stages(phases: Sequence[Phase]) -> Figure | None:
    """Where the server spent its time, means by its own timings; None where it said nothing of it."""
    timed = [phase for phase in phases if phase.stages_ms["total"]["mean"] is not None]
    if not timed:
        return None
    figure, (axes,) = _figure(1.1 + 0.34 * len(timed))
    rows = range(len(timed))
    left = [0.0] * len(timed)
    for part, colour in PARTS.items():
        values = [_part_ms(phase, part) for phase in timed]
        axes.barh(rows, values, left=left, color=colour, label=part, height=0.62)
        left = [before + value for before, value in zip(left, values, strict=True)]
    axes.set_yticks(rows, [phase.name for phase in timed])
    axes.invert_yaxis()
    _label(axes, "mean, ms", "")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return figure


_NOTE = {"rotation": 90, "va": "top", "fontsize": 8, "color": VIOLET}


def _part_ms(phase: Phase, part: str) -> float:
    means = {stage: phase.stages_ms[stage]["mean"] or 0.0 for stage in STAGES}
    if part in means:
        return means[part]
    return max(0.0, means["total"] - sum(mean for stage, mean in means.items() if stage != "total"))


def _figure(height_in: float, rows: int = 1) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    axes = figure.subplots(rows, 1, sharex=rows > 1, squeeze=False)[:, 0]
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(alpha=0.25)
        one.set_axisbelow(True)
    return figure, list(axes)


def _logarithmic(axes: Axes, which: Literal["x", "y"]) -> None:
    """With ticks at 1, 2, 5, 10, …, in plain figures."""
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, loc="best")


def _once(axes: Axes, label: str) -> str | None:
    """A label for the first of several alike."""
    return None if label in axes.get_legend_handles_labels()[1] else label
