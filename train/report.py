"""What an evaluation found: the quality of every stage, as a table, and what each step to the next costs."""

import math
from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict, Field

from train.measures import Estimate, difference

REPORT_NAME = "report.json"
TABLE_NAME = "table.md"
STEPS_NAME = "steps.md"


class StageQuality(BaseModel):
    """One stage on one labelled set."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    labelled_set: str
    stage: str
    before: str | None = None
    """The stage that this one differs from in one thing."""
    query_count: int
    measures: dict[str, float]
    retention: dict[str, Estimate]
    """Each measure over the teacher's, with a 95 % bootstrap interval over queries."""
    judged: float = math.nan
    """Share of the ten best ads that were judged at all: what was not counts as wrong."""
    overlap: float
    """Mean share of the teacher's exact top k that the stage finds too."""
    cosine_mean: float
    """Of a query's embedding with the teacher's, as the following."""
    cosine_p5: float
    cosine_p1: float
    of_queries: dict[str, dict[int, float]] = Field(default_factory=dict, exclude=True, repr=False)
    """Each measure by position of the query."""


class Report(BaseModel):
    """All stages on all sets."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    k: int
    ad_count: int
    stages: list[StageQuality]


def markdown(report: Report) -> str:
    """The report as a Markdown table, intervals included."""
    names = list(report.stages[0].measures)
    head = [
        "set",
        "stage",
        *names,
        *(f"{name} kept" for name in names),
        "judged@10",
        f"overlap@{report.k}",
        "cosine mean",
        "p5",
        "p1",
    ]
    lines = [head, ["---"] * len(head)]
    for stage in report.stages:
        values = [f"{stage.measures[name]:.4f}" for name in names]
        kept = [f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]" for one in map(stage.retention.__getitem__, names)]
        likeness = [
            f"{value:.4f}"
            for value in (stage.judged, stage.overlap, stage.cosine_mean, stage.cosine_p5, stage.cosine_p1)
        ]
        lines.append([f"{stage.labelled_set} ({stage.query_count})", stage.stage, *values, *kept, *likeness])
    return as_markdown(lines)


def steps_markdown(report: Report) -> str:
    """What each stage costs or gains, less the one before it, on the same queries: the losses come apart."""
    names = list(report.stages[0].measures)
    lines = [["set", "stage", "less", *names], ["---"] * (3 + len(names))]
    for stage, before in _steps(report):
        apart = [difference(stage.of_queries[name], before.of_queries[name]) for name in names]
        cells = [f"{one.value:+.4f} [{one.low:+.4f}, {one.high:+.4f}]" for one in apart]
        lines.append([f"{stage.labelled_set} ({stage.query_count})", stage.stage, before.stage, *cells])
    return as_markdown(lines)


def as_markdown(lines: list[list[str]]) -> str:
    """Lines of cells as a Markdown table."""
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _steps(report: Report) -> Iterator[tuple[StageQuality, StageQuality]]:
    stages = {(stage.labelled_set, stage.stage): stage for stage in report.stages}
    for stage in report.stages:
        if stage.before is not None:
            yield stage, stages[stage.labelled_set, stage.before]
