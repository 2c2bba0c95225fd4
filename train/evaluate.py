"""Every stage of a recipe on labelled queries: what it finds, and what it keeps of what its teacher finds.

hlm train evaluate RECIPE [--queries q.tsv --qrels qrels.tsv]
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from rich.table import Table

from artifacts.store import write_atomic
from client.trec import read_qrels, read_queries
from terminal import console, show_table
from train.data import Inventory, LabelledQueries, label, read_inventory, read_split
from train.encoders import Embeddings
from train.errors import TrainError
from train.measures import Estimate, PerQuery, mean, measure_rankings, overlap, retention
from train.runs import CheckpointManifest, EmbeddingsManifest, Run, load_finished
from train.stages import Stage, Stages, half_the_advertisers

REPORT_NAME = "report.json"
TABLE_NAME = "table.md"
FILTERED = "half the advertisers"


class StageQuality(BaseModel):
    """One stage on one labelled set."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    labelled_set: str
    stage: str
    query_count: int
    measures: dict[str, float]
    retention: dict[str, Estimate]
    """Each measure over the teacher's, with a 95 % bootstrap interval over queries."""
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


def evaluate(run: Run, files: tuple[Path, Path] | None = None) -> Report:
    """Measure all stages that have been run, and write the report.

    Beside each labelled set stands a filtered one, where there is an index: the same queries, asked with a filter that
    half the advertisers do not pass, whose ads then do not count as right either. What other files give lies in a
    directory of its own, named after theirs and the queries, so that the recipe's own report and others' stay.

    Args:
        run: the recipe and its results.
        files: queries and qrels to measure on; the dev split of each of the recipe's sets where not given.

    Raises:
        HlmError: teacher or ads are not there yet, or a file cannot be used.
    """
    teacher = load_finished(run.teacher, CheckpointManifest, "teacher")
    load_finished(run.ads, EmbeddingsManifest, "embed-ads")
    inventory = read_inventory(run.recipe.data)
    stages, selection = Stages(run, inventory, teacher.space), half_the_advertisers(inventory)
    k = min(run.recipe.evaluation_k, len(selection.rows))
    qualities = []
    for name, labelled in _labelled_sets(run, inventory, files):
        qualities += list(_measure(name, labelled, stages.unfiltered(k), k))
        if stages.has_index:
            passing = labelled.among(selection.rows)
            qualities += list(_measure(f"{name}, {FILTERED}", passing, stages.filtered(selection, k), k))
    report = Report(k=k, ad_count=len(inventory.active), stages=qualities)
    directory = run.evaluation / _name_of(files[0]) if files else run.evaluation
    directory.mkdir(parents=True, exist_ok=True)
    write_atomic(directory / REPORT_NAME, report.model_dump_json(indent=2).encode() + b"\n")
    write_atomic(directory / TABLE_NAME, markdown(report).encode())
    console.print(f"{directory / TABLE_NAME}: written", markup=False, soft_wrap=True)
    return report


def markdown(report: Report) -> str:
    """The report as a Markdown table, intervals included."""
    names = list(report.stages[0].measures)
    head = [
        "set",
        "stage",
        *names,
        *(f"{name} kept" for name in names),
        f"overlap@{report.k}",
        "cosine mean",
        "p5",
        "p1",
    ]
    lines = [head, ["---"] * len(head)]
    for stage in report.stages:
        values = [f"{stage.measures[name]:.4f}" for name in names]
        kept = [f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]" for one in map(stage.retention.__getitem__, names)]
        likeness = [f"{value:.4f}" for value in (stage.overlap, stage.cosine_mean, stage.cosine_p5, stage.cosine_p1)]
        lines.append([f"{stage.labelled_set} ({stage.query_count})", stage.stage, *values, *kept, *likeness])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def show_report(report: Report) -> None:
    """Print what a glance needs: each measure with its share of the teacher's."""
    names = list(report.stages[0].measures)
    table = Table(title=f"{report.ad_count:,} ads; each measure, and its share of the teacher's", title_justify="left")
    for column in ("set", "stage", *names, f"overlap@{report.k}", "cosine"):
        table.add_column(column)
    for stage in report.stages:
        values = [f"{stage.measures[name]:.4f} {stage.retention[name].value:.3f}" for name in names]
        table.add_row(stage.labelled_set, stage.stage, *values, f"{stage.overlap:.3f}", f"{stage.cosine_mean:.4f}")
    show_table(table)


def _labelled_sets(
    run: Run, inventory: Inventory, files: tuple[Path, Path] | None
) -> Iterator[tuple[str, LabelledQueries]]:
    if files is None:
        for directory in run.recipe.data.dev:
            yield directory.name, read_split([directory], "dev", inventory)
        return
    queries, qrels = files
    labelled = label(read_queries(queries), read_qrels(qrels), inventory)
    if not labelled.texts:
        raise TrainError(f"{queries}: no query has a judged ad in {qrels} that the recipe's inventory has too")
    yield _name_of(queries), labelled


def _name_of(queries: Path) -> str:
    """With the directory, since every labelled set calls its queries the same."""
    return f"{queries.resolve().parent.name}/{queries.stem}"


def _measure(name: str, labelled: LabelledQueries, stages: Iterable[Stage], k: int) -> Iterator[StageQuality]:
    """Quality of each stage; the first is the teacher, which the others are held against."""
    expected: Embeddings | None = None
    for stage in stages:
        embeddings = stage.embed(labelled.texts)
        rows = stage.search(embeddings)
        values = measure_rankings(rows, labelled.grades, k)
        if expected is None:
            expected, best, reference = embeddings, rows, values
        yield _quality(name, stage.name, values, reference, overlap(best, rows), (embeddings * expected).sum(axis=1))


def _quality(
    labelled_set: str,
    stage: str,
    values: PerQuery,
    reference: PerQuery,
    shared: float,
    cosines: NDArray[np.float32],
) -> StageQuality:
    return StageQuality(
        labelled_set=labelled_set,
        stage=stage,
        query_count=len(cosines),
        measures={measure: mean(of_queries) for measure, of_queries in values.items()},
        retention={measure: retention(of_queries, reference[measure]) for measure, of_queries in values.items()},
        overlap=shared,
        cosine_mean=float(cosines.mean()),
        cosine_p5=float(np.percentile(cosines, 5)),
        cosine_p1=float(np.percentile(cosines, 1)),
        of_queries=values,
    )
