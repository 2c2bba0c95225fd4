"""Stages of several arms, each held against the same stage of the first arm: as a table, and as a picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from plots import plot
from train.measures import Estimate, difference
from train.report import Report, StageQuality, as_markdown

PLOT_NAME = "differences.svg"
_PANEL_IN, _LABELS_IN, _LINE_IN = 2.6, 2.4, 0.24


@dataclass(frozen=True)
class Row:
    """One stage of an arm on one labelled set."""

    arm: str
    stage: StageQuality
    apart: dict[str, Estimate]
    """By name of the measure, less the first arm's, with a 95 % bootstrap interval over queries."""


def compare(reports: Mapping[str, Report]) -> list[Row]:
    """Hold every stage against the first report's; where that has no such stage, against its teacher."""
    first = next(iter(reports.values()))
    references = {(stage.labelled_set, stage.stage): stage for stage in first.stages}
    rows = []
    for arm, report in reports.items():
        for stage in report.stages:
            teacher = references[stage.labelled_set, first.stages[0].stage]
            reference = references.get((stage.labelled_set, stage.stage), teacher)
            apart = {name: difference(stage.of_queries[name], reference.of_queries[name]) for name in stage.measures}
            rows.append(Row(arm, stage, apart))
    return rows


def as_table(rows: Sequence[Row]) -> str:
    """All rows, in Markdown."""
    measures = list(rows[0].apart)
    head = ["set", "arm", "stage", *(cell for name in measures for cell in (name, "less the first arm's"))]
    lines = [[*head, "overlap with its teacher", "cosine mean"], ["---"] * (len(head) + 2)]
    for row in rows:
        stage = row.stage
        cells = [f"{stage.labelled_set} ({stage.query_count})", row.arm, stage.stage]
        for name, apart in row.apart.items():
            cells += [f"{stage.measures[name]:.4f}", f"{apart.value:+.4f} [{apart.low:+.4f}, {apart.high:+.4f}]"]
        lines.append([*cells, f"{stage.overlap:.3f}", f"{stage.cosine_mean:.4f}"])
    return as_markdown(lines)


def plot_differences(rows: Sequence[Row], path: Path) -> None:
    """Draw the first labelled set: a panel for each measure, a line for each stage of the other arms.

    Stages that differ in nothing, as a teacher that all arms share, are left out; without any other, nothing is drawn.
    """
    first = rows[0]
    others = [row for row in rows if row.stage.labelled_set == first.stage.labelled_set and row.arm != first.arm]
    drawn = [row for row in others if any(one.low or one.high for one in row.apart.values())]
    if not drawn:
        return
    places = range(len(drawn), 0, -1)
    size = _LABELS_IN + _PANEL_IN * len(first.apart), 1.2 + _LINE_IN * len(drawn)
    with plot(path, width_in=size[0], height_in=size[1]) as figure:
        panels = figure.subplots(1, len(first.apart), sharey=True, squeeze=False)[0]
        for axes, name in zip(panels, first.apart, strict=True):
            found = [row.apart[name] for row in drawn]
            axes.axvline(0, color="#999999", linewidth=1)
            axes.hlines(places, [one.low for one in found], [one.high for one in found])
            axes.plot([one.value for one in found], places, "o", markersize=4)
            axes.locator_params(axis="x", nbins=4)
            axes.set_title(name)
        panels[0].set_yticks(places, [f"{row.arm}: {row.stage.stage}" for row in drawn])
        figure.supxlabel(f"less {first.arm}, {first.stage.labelled_set} dev, 95 % intervals")
