"""Every stage of a recipe on labelled queries: what it finds, and what it keeps of what its teacher finds.

hlm train evaluate RECIPE [--queries q.tsv --qrels qrels.tsv]
"""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from rich.table import Table

from artifacts.store import write_atomic
from client.trec import read_qrels, read_queries
from terminal import console, show_table
from train.data import Inventory, LabelledQueries, label, read_inventory, read_split
from train.encoders import Embeddings
from train.errors import TrainError
from train.measures import judged_share, mean, measure_rankings, overlap, retention
from train.report import (
    REPORT_NAME,
    STEPS_NAME,
    TABLE_NAME,
    Report,
    StageQuality,
    markdown,
    steps_markdown,
)
from train.runs import Run
from train.stages import Stage, Stages, half_the_advertisers

FILTERED = "half the advertisers"


def evaluate(run: Run, files: tuple[Path, Path] | None = None) -> Report:
    """Measure all stages that have been run, and write the report.

    Beside each labelled set stands a filtered one, where there is an index and enough ads pass: the same queries, asked
    with a filter that half the advertisers do not pass, whose ads then do not count as right either. What other files
    give lies in a directory of its own, named after theirs and the queries, so that the recipe's own report and others'
    stay.

    Args:
        run: the recipe and its results.
        files: queries and qrels to measure on; the dev split of each of the recipe's sets where not given.

    Raises:
        HlmError: teacher or ads are not there yet, the ads are of another teacher or feed, or a file cannot be used.
    """
    inventory = read_inventory(run.recipe.data)
    stages, selection = Stages(run, inventory, time.time()), half_the_advertisers(inventory)
    k = min(run.recipe.evaluation_k, len(inventory.active))
    if not k:
        raise TrainError("no ad of the recipe's feeds is active; expected some to find")
    filters_some = k <= len(selection.rows) < len(inventory.active)
    qualities = []
    for name, labelled in _labelled_sets(run, inventory, files):
        qualities += list(_measure(name, labelled, stages.unfiltered(k), k))
        if stages.has_index and filters_some:
            passing = labelled.among(selection.rows)
            qualities += list(_measure(f"{name}, {FILTERED}", passing, stages.filtered(selection, k), k))
    report = Report(k=k, ad_count=len(inventory.active), stages=qualities)
    _write(report, run.evaluation / _name_of(files[0]) if files else run.evaluation)
    return report


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


def _write(report: Report, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    write_atomic(directory / REPORT_NAME, report.model_dump_json(indent=2).encode() + b"\n")
    for name, table in ((TABLE_NAME, markdown(report)), (STEPS_NAME, steps_markdown(report))):
        write_atomic(directory / name, table.encode())
        console.print(f"{directory / name}: written", markup=False, soft_wrap=True)


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
        rows = stage.search(labelled.texts, embeddings)
        values = measure_rankings(rows, labelled.grades, k)
        if expected is None:
            expected, best, reference = embeddings, rows, values
        cosines = (embeddings * expected).sum(axis=1)
        yield StageQuality(
            labelled_set=name,
            stage=stage.name,
            before=stage.before,
            query_count=len(cosines),
            measures={measure: mean(of_queries) for measure, of_queries in values.items()},
            retention={measure: retention(of_queries, reference[measure]) for measure, of_queries in values.items()},
            judged=judged_share(rows, labelled.grades),
            overlap=overlap(best, rows),
            cosine_mean=float(cosines.mean()),
            cosine_p5=float(np.percentile(cosines, 5)),
            cosine_p1=float(np.percentile(cosines, 1)),
            of_queries=values,
        )
