"""The figures of a report, drawn by matplotlib."""

import math
from collections.abc import Sequence
from typing import Literal

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from loadtest.recorder import STAGES
from loadtest.result import Event, Phase, Result, Second

BLUE, ORANGE, GREEN, RED, GREY, VIOLET = "#2563eb", "#f59e0b", "#10b981", "#dc2626", "#6b7280", "#7c3aed"
PERCENTILES = {"p50": "#7cb0f7", "p90": "#2563eb", "p99": "#172f78"}
"""From light to dark, as latency rises: red is for what went wrong, and red beside green is one colour to some."""
PARTS = {"tokenize": GREEN, "queue": ORANGE, "encode": BLUE, "search": VIOLET, "rest of the server": "#94a3b8"}
WIDTH_IN = 9.2
LEAST_NAMED = 0.08
"""Of the time axis, how wide a load has to be to bear its name."""
LEAST_APART = 0.02
"""Of the time axis, between two events that have a name each."""
MOST_SHOWN = 6
"""Of histograms in one figure; more hide each other."""
MOST_FILLED = 3


def charts(result: Result) -> dict[str, Figure]:
    """By file name, those that the result has something for."""
    phases = sorted(result.phases, key=lambda phase: phase.offered_qps) if result.capacity else result.phases
    drawn = {
        "latency-against-rate": against_rate(result),
        "over-time": over_time(result),
        "histogram": histogram(phases),
        "stages": stages(phases),
    }
    return {name: figure for name, figure in drawn.items() if figure}


def against_rate(result: Result) -> Figure | None:
    """Percentiles of open-loop phases over the rate that was offered; None with fewer than two."""
    phases = sorted((phase for phase in result.phases if phase.open_loop), key=lambda phase: phase.offered_qps)
    if len(phases) < 2:
        return None
    figure, (axes,) = _figure(3.6)
    line = "" if result.events else "-"  # where other things happened, a rate is no cause to draw a line along
    for name, colour in PERCENTILES.items():
        values = [phase.latency_ms[name] or float("nan") for phase in phases]
        axes.plot([phase.offered_qps for phase in phases], values, f"o{line}", color=colour, label=name, markersize=4)
    for phase in phases if result.events else ():
        at = (phase.offered_qps, phase.latency_ms["p99"] or float("nan"))
        axes.annotate(phase.name, at, (0, 6), textcoords="offset points", ha="center", color=GREY, fontsize=8)
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
    figure, (above, below) = _figure(5.4, rows=2)
    begins_s = {round(phase.from_s) for phase in result.phases}
    for part in _without_gaps(seconds, begins_s):
        _draw_seconds(above, below, part)
    _logarithmic(above, "y")
    below.set_ylim(bottom=0)
    span_s = (min(begins_s | {seconds[0].at_s}), seconds[-1].at_s + 1)
    below.set_xlim(*span_s)
    _mark_loads(above, below, result.phases, span_s[1] - span_s[0])
    _mark_events(above, below, result.events, span_s[1] - span_s[0])
    _label(above, "", "latency, ms")
    _label(below, "seconds since the start", "requests a second")
    return figure


def histogram(phases: Sequence[Phase]) -> Figure | None:
    """How often which latency was met; None where nothing was answered."""
    answered = [phase for phase in phases if phase.histogram.counts]
    if not answered:
        return None
    figure, (axes,) = _figure(3.2)
    shown = answered[:: max(1, -(-len(answered) // MOST_SHOWN))]
    for number, phase in enumerate(shown):
        total = sum(phase.histogram.counts)
        shares = [100 * count / total for count in phase.histogram.counts]
        colour = colormaps["viridis_r"](0.2 + 0.8 * number / len(shown)) if len(shown) > 1 else BLUE
        axes.stairs(shares, phase.histogram.edges_ms, label=phase.name, linewidth=1.6, color=colour)
        if len(shown) <= MOST_FILLED:
            axes.stairs(shares, phase.histogram.edges_ms, fill=True, color=colour, alpha=0.5 / len(shown))
    if len(answered) == 1:
        for name, colour in PERCENTILES.items():
            axes.axvline(answered[0].latency_ms[name] or 0, color=colour, linestyle="--", label=name)
    _logarithmic(axes, "x")
    axes.set_ylim(bottom=0)
    _label(axes, "latency, ms", "% of the answers")
    return figure


def stages(phases: Sequence[Phase]) -> Figure | None:
    """Where the server spent its time, means by its own timings; None where it said nothing of it."""
    timed = [phase for phase in phases if phase.stages_ms["total"]["mean"] is not None]
    if not timed:
        return None
    figure, (axes,) = _figure(1.3 + 0.34 * len(timed))
    rows = range(len(timed))
    left = [0.0] * len(timed)
    for part, colour in PARTS.items():
        values = [_part_ms(phase, part) for phase in timed]
        axes.barh(rows, values, left=left, color=colour, label=part, height=0.62)
        left = [before + value for before, value in zip(left, values, strict=True)]
    for row, total in enumerate(left):
        axes.annotate(f"{total:.3g} ms", (total, row), (5, 0), textcoords="offset points", va="center", color=GREY)
    axes.set_yticks(rows, [phase.name for phase in timed])
    axes.set_ylim(len(timed) - 0.4, -0.6)
    axes.margins(x=0.1)
    axes.grid(visible=False, axis="y")
    _label(axes, "mean, ms", "")
    return figure


def _without_gaps(seconds: Sequence[Second], begins_s: set[int]) -> list[list[Second]]:
    """Seconds that follow each other within a load, since a line from one load to the next shows what never was."""
    parts: list[list[Second]] = []
    for second in seconds:
        if not parts or second.at_s != parts[-1][-1].at_s + 1 or second.at_s in begins_s:
            parts.append([])
        parts[-1].append(second)
    return parts


def _draw_seconds(above: Axes, below: Axes, seconds: Sequence[Second]) -> None:
    middles_s = [second.at_s + 0.5 for second in seconds]
    edges_s = [*(second.at_s for second in seconds), seconds[-1].at_s + 1]
    for name in ("p50", "p99"):
        values = [getattr(second, f"{name}_ms") or float("nan") for second in seconds]
        marker = "o" if len(seconds) == 1 else ""
        label = _once(above, name)
        above.plot(middles_s, values, color=PERCENTILES[name], label=label, linewidth=1.4, marker=marker, markersize=3)
    offered, achieved, errors = ([getattr(one, name) for one in seconds] for name in ("offered", "achieved", "errors"))
    below.stairs(offered, edges_s, color=GREY, label=_once(below, "offered"), linewidth=1.2)
    below.stairs(achieved, edges_s, color=BLUE, label=_once(below, "achieved"), linewidth=1.2)
    if any(errors):
        below.stairs(errors, edges_s, color=RED, fill=True, label=_once(below, "errors"))


def _mark_loads(above: Axes, below: Axes, phases: Sequence[Phase], span_s: float) -> None:
    """Every other load on a shade, with its name where there is room."""
    for number, phase in enumerate(phases if len(phases) > 1 else ()):
        for axes in (above, below):
            if number % 2:
                axes.axvspan(phase.from_s, phase.from_s + phase.seconds, color=GREY, alpha=0.08, linewidth=0)
        if phase.seconds > LEAST_NAMED * span_s:
            middle = (phase.from_s + phase.seconds / 2, 0)
            at = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
            below.annotate(phase.name, middle, (0, 4), ha="center", color=GREY, fontsize=8, **at)


def _mark_events(above: Axes, below: Axes, events: Sequence[Event], span_s: float) -> None:
    """A line each through both axes; names of those that are too close to each other stand in one line."""
    names: dict[float, list[str]] = {}
    for event in sorted(events, key=lambda event: event.at_s):
        for axes in (above, below):
            axes.axvline(event.at_s, color=VIOLET if event.done else RED, linestyle="--", linewidth=1)
        before_s = max(names, default=-math.inf)
        at_s = before_s if event.at_s - before_s < LEAST_APART * span_s else event.at_s
        names.setdefault(at_s, []).append(event.name)
    for at_s, together in names.items():
        place = ((3, -3), ("data", "axes fraction"), "offset points")
        above.annotate(" · ".join(together), (at_s, 1), *place, **_NOTE)


_NOTE = {
    "rotation": 90,
    "va": "top",
    "fontsize": 8,
    "color": VIOLET,
    "bbox": {"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 1},
}


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
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    handles, labels = axes.get_legend_handles_labels()
    if handles:  # above the axes, where it hides nothing
        place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2, "handlelength": 1.6}
        axes.legend(handles, labels, frameon=False, ncols=min(len(labels), 7), **place)


def _once(axes: Axes, label: str) -> str | None:
    """A label for the first of several alike."""
    return None if label in axes.get_legend_handles_labels()[1] else label
