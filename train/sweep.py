"""Everything in order: one recipe through its phases, and the arms of a sweep one after the other, held side by side.

hlm train sweep RECIPE [--arm NAME]
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from artifacts.store import write_atomic
from train.align import align_student
from train.check import check_data, show_findings
from train.comparison import PLOT_NAME, as_table, compare, plot_differences
from train.embed_ads import embed_ads
from train.evaluate import evaluate
from train.joint import train_joint
from train.recipe import Data, Side
from train.refine import refine_student
from train.report import TABLE_NAME, Report
from train.runs import Run
from train.teacher import train_teacher


def run_phases(run: Run) -> None:
    """All phases of a recipe, as far as their results are not there already.

    Raises:
        HlmError: a phase cannot be run.
    """
    train_teacher(run)
    embed_ads(run)
    for student in run.recipe.students:
        align_student(run, student)
        if student.refine:
            refine_student(run, student)
    if run.recipe.joint:
        train_joint(run)


def run_sweep(arms: Mapping[str, Run], names: Sequence[str]) -> str:
    """Run some arms of a sweep and measure them.

    Returns the table, which lies in the sweep's directory too, beside a picture where there are several arms.

    Args:
        arms: all arms, by name.
        names: which to run; the first is what the others are held against.

    Raises:
        HlmError: a dev query is among what is learnt from, or a phase cannot be run.
    """
    reports: dict[str, Report] = {}
    _check_each(arms[name] for name in names)
    for name in names:
        run_phases(arms[name])
        reports[name] = evaluate(arms[name])
    directory, rows = _directory(arms), compare(reports)
    table = as_table(rows)
    write_atomic(directory / TABLE_NAME, table.encode())
    if len(reports) > 1:
        plot_differences(rows, directory / PLOT_NAME)
    return table


def _check_each(runs: Iterable[Run]) -> None:
    """Look at the data of all arms before any is trained, once where they read the same."""
    seen: list[tuple[Data, str, Side, Side]] = []
    for run in runs:
        data = run.recipe.data.model_copy(update={"query_weights": {}, "held_out_queries": 1})  # which it does not ask
        read = (data, run.recipe.teacher.model, run.recipe.query, run.recipe.ad)
        if read not in seen:
            seen.append(read)
            show_findings(check_data(run))


def _directory(arms: Mapping[str, Run]) -> Path:
    return next(iter(arms.values())).directory.parent
