"""Everything in order: one recipe through its phases, and the arms of a sweep one after the other, held side by side.

hlm train sweep RECIPE [--arm NAME]
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from artifacts.store import write_atomic
from train.align import align_student
from train.embed_ads import embed_ads
from train.evaluate import TABLE_NAME, Report, evaluate
from train.joint import train_joint
from train.measures import difference
from train.refine import refine_student
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
    """Run some arms of a sweep and measure them; returns the table, which lies in the sweep's directory too.

    Args:
        arms: all arms, by name.
        names: which to run; the first is what the others are held against.

    Raises:
        HlmError: a phase cannot be run.
    """
    reports: dict[str, Report] = {}
    for name in names:
        run_phases(arms[name])
        reports[name] = evaluate(arms[name])
    table = compare(reports)
    write_atomic(_directory(arms) / TABLE_NAME, table.encode())
    return table


def compare(reports: Mapping[str, Report]) -> str:
    """A Markdown table of all stages of some reports, and how far each is from the same stage of the first report.

    Where the first has no such stage, its teacher takes the place. Intervals are 95 % bootstrap over queries.
    """
    first = next(iter(reports.values()))
    references = {(stage.labelled_set, stage.stage): stage for stage in first.stages}
    measures = list(first.stages[0].measures)
    lines = [["set", "arm", "stage", *(cell for name in measures for cell in (name, "less the first arm's"))]]
    lines.append(["---"] * len(lines[0]))
    for arm, report in reports.items():
        for stage in report.stages:
            key = stage.labelled_set, stage.stage
            reference = references.get(key, references[stage.labelled_set, first.stages[0].stage])
            cells = [f"{stage.labelled_set} ({stage.query_count})", arm, stage.stage]
            for name in measures:
                apart = difference(stage.of_queries[name], reference.of_queries[name])
                cells += [f"{stage.measures[name]:.4f}", f"{apart.value:+.4f} [{apart.low:+.4f}, {apart.high:+.4f}]"]
            lines.append(cells)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _directory(arms: Mapping[str, Run]) -> Path:
    return next(iter(arms.values())).directory.parent
