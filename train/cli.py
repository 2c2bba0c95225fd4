"""`hlm train`: the phases of a recipe, one command each, and all of them at once."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from train.recipe import Student
    from train.runs import Run

app = typer.Typer(
    help="Make a student encoder: fine-tune a teacher, align a student to it, refine it, measure all of it.",
    no_args_is_help=True,
)

RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="Path of a recipe, or smoke, small or qwen3.")]
Runs = Annotated[Path, typer.Option(help="Results go into a directory of the recipe's name under this one.")]
StudentNames = Annotated[list[str] | None, typer.Option("--student", help="Only this one; may be given again.")]
DEFAULT_RUNS = Path("var/runs")


@app.command()
def samples(
    out: Annotated[Path, typer.Option(help="Directory of the labelled set.", file_okay=False)],
    ads: Annotated[int, typer.Option(min=100, help="How many ads.")] = 1_000,
    queries: Annotated[int, typer.Option(min=10, help="Most labelled queries; a quarter of them is held out.")] = 200,
    unlabelled: Annotated[int, typer.Option(min=100, help="Most unlabelled queries.")] = 1_000,
    seed: Annotated[int, typer.Option(help="Another seed, another set; the same seed, the same bytes.")] = 1,
) -> None:
    """Write a labelled set of made-up ads, queries and grades, to try a recipe with.

    Examples:
      hlm train samples --out var/data/samples

    Exit codes:
      0  written
      1  failed, with one sentence that says why
      2  wrong usage
    """
    from artifacts.errors import HlmError
    from artifacts.store import write_atomic
    from samples.labelled import labelled_files

    files = labelled_files(ads, queries, unlabelled, seed)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_atomic(out / name, content)
    except OSError as error:
        raise HlmError(f"{out}: cannot be written ({error.strerror})") from error
    typer.echo(f"{out}: {', '.join(files)}")


@app.command()
def check(recipe: RecipeName, runs: Runs = DEFAULT_RUNS) -> None:
    """Look at a recipe's data: leaks between splits, duplicates, unknown ids, texts that are cut.

    Examples:
      hlm train check smoke

    Exit codes:
      0  no leak; the table says what else there is
      1  a dev query is among what is learnt from, or a file cannot be read
      2  wrong usage
    """
    run = _open(recipe, runs)
    from train.check import check_data, show_findings

    show_findings(check_data(run))


@app.command()
def teacher(recipe: RecipeName, runs: Runs = DEFAULT_RUNS) -> None:
    """Phase 1: fine-tune the teacher, for queries and ads alike.

    Does nothing where the result is there already; a killed run goes on at its last save.

    Examples:
      hlm train teacher smoke

    Exit codes:
      0  trained, or up to date
      1  failed, with one sentence that says why
      2  wrong usage
    """
    run = _open(recipe, runs)
    from train.teacher import train_teacher

    train_teacher(run)


@app.command("embed-ads")
def embed_ads(recipe: RecipeName, runs: Runs = DEFAULT_RUNS) -> None:
    """Embed all ads with the teacher, once and for all students.

    Does nothing where the result is there already; a killed run goes on at its last shard.

    Examples:
      hlm train embed-ads smoke

    Exit codes:
      0  embedded, or up to date
      1  failed, with one sentence that says why
      2  wrong usage
    """
    run = _open(recipe, runs)
    from train.embed_ads import embed_ads as embed

    embed(run)


@app.command()
def align(recipe: RecipeName, student: StudentNames = None, runs: Runs = DEFAULT_RUNS) -> None:
    """Phase 2: align the students to the teacher, in the recipe's order.

    Does nothing for those that are there already; a killed run goes on at its last save.

    Examples:
      hlm train align smoke
      hlm train align small --student l4 --student l3

    Exit codes:
      0  aligned, or up to date
      1  failed, with one sentence that says why
      2  wrong usage
    """
    run = _open(recipe, runs)
    from train.align import align_student

    for one in _students(run, student):
        align_student(run, one)


@app.command()
def refine(recipe: RecipeName, student: StudentNames = None, runs: Runs = DEFAULT_RUNS) -> None:
    """Phase 3: refine those students that the recipe refines, against the ads' fixed embeddings.

    Does nothing for those that are there already; a killed run goes on at its last save.

    Examples:
      hlm train refine smoke

    Exit codes:
      0  refined, or up to date
      1  failed, with one sentence that says why
      2  wrong usage
    """
    run = _open(recipe, runs)
    from train.refine import refine_student

    for one in _students(run, student):
        if one.refine or student:
            refine_student(run, one)


@app.command()
def joint(recipe: RecipeName, runs: Runs = DEFAULT_RUNS) -> None:
    """The arm without alignment: a query encoder and an ad encoder learn together, and embed the ads anew.

    Does nothing where the result is there already; a killed run goes on at its last save.

    Examples:
      hlm train joint arms/joint

    Exit codes:
      0  trained, or up to date
      1  failed, with one sentence that says why
      2  wrong usage
    """
    run = _open(recipe, runs)
    from train.joint import train_joint

    train_joint(run)


@app.command()
def evaluate(
    recipe: RecipeName,
    queries: Annotated[Path | None, typer.Option(help="Tab-separated: query_id, text. With --qrels.")] = None,
    qrels: Annotated[Path | None, typer.Option(help="Tab-separated: query_id, ad_id, grade.")] = None,
    runs: Runs = DEFAULT_RUNS,
) -> None:
    """Measure every stage that has been run: quality, what is kept of the teacher's, and how near the students are.

    What is exported is measured too, exactly, through the index, and through it with a filter.

    Writes report.json, table.md and steps.md into the recipe's directory `evaluation`; for other queries into a
    directory below it, of the names of their directory and file. What is not of the recipe, the data and the results
    before it as they are now is left out.

    Examples:
      hlm train evaluate smoke
      hlm train evaluate small --queries q.tsv --qrels qrels.tsv

    Exit codes:
      0  measured
      1  failed, with one sentence that says why
      2  wrong usage
    """
    if (queries is None) != (qrels is None):
        raise typer.BadParameter("--queries and --qrels belong together")
    run = _open(recipe, runs)
    from train.evaluate import evaluate as measure
    from train.evaluate import show_report

    files = (queries, qrels) if queries and qrels else None
    show_report(measure(run, files))


@app.command()
def latency(recipe: RecipeName, runs: Runs = DEFAULT_RUNS) -> None:
    """Time the teacher and every student as they are exported, and set what each keeps of the recall against it.

    Processor time of one thread, the encoders taking turns. Writes latency.json, latency.md and, after an evaluation,
    frontier.svg into the recipe's directory `evaluation`.

    Examples:
      hlm train latency small

    Exit codes:
      0  measured
      1  failed, with one sentence that says why
      2  wrong usage
    """
    _latency(_open(recipe, runs))


@app.command("run")
def run_all(recipe: RecipeName, runs: Runs = DEFAULT_RUNS) -> None:
    """Everything: check the data, run all phases, export all encoders, index, measure quality and time.

    Whatever is there already is not made again, so a run that was stopped goes on where it was.

    Examples:
      hlm train run smoke

    Exit codes:
      0  done
      1  failed, with one sentence that says why
      2  wrong usage
    """
    run = _open(recipe, runs)
    from train.check import check_data, show_findings
    from train.evaluate import evaluate as measure
    from train.evaluate import show_report
    from train.release import make_release
    from train.sweep import run_phases

    show_findings(check_data(run))
    run_phases(run)
    if run.recipe.serving:
        make_release(run)
    show_report(measure(run))
    if run.recipe.serving:
        _latency(run)


@app.command()
def sweep(
    recipe: RecipeName,
    arm: Annotated[list[str] | None, typer.Option(help="Only this one; may be given again.")] = None,
    runs: Runs = DEFAULT_RUNS,
) -> None:
    """Run every arm of a recipe that has `arms`, and hold them side by side.

    What arms have in common, and what the base has been run for, is made once. Writes table.md and, of several arms,
    differences.svg into the recipe's directory; the first arm is what the others are held against.

    Examples:
      hlm train sweep arms/teacher
      hlm train sweep arms/teacher --arm in-batch --arm temperature-0.02

    Exit codes:
      0  done
      1  failed, with one sentence that says why
      2  wrong usage
    """
    _check_extra()
    from train.runs import Run
    from train.sweep import run_sweep

    arms = Run.open_arms(recipe, runs)
    if unknown := set(arm or ()) - set(arms):
        raise typer.BadParameter(f"no arm is called {min(unknown)}; expected one of {list(arms)}")
    typer.echo(run_sweep(arms, arm or list(arms)))


def _latency(run: "Run") -> None:
    from train.frontier import PLOT_NAME, plot_frontier
    from train.latency import markdown, measure_costs

    costs = measure_costs(run)
    if any(cost.recall_kept is not None for cost in costs):
        plot_frontier(costs, run.evaluation / PLOT_NAME)
    typer.echo(markdown(costs))


def _open(recipe: str, runs: Path) -> "Run":
    _check_extra()
    from train.runs import Run

    return Run.open(recipe, runs)


def _check_extra() -> None:
    from train.errors import TrainError

    try:
        import train.runs  # noqa: F401 - loads torch
    except ImportError as error:
        raise TrainError(f"The package {error.name} is missing; install the extra `offline` to train") from error


def _students(run: "Run", names: list[str] | None) -> "list[Student]":
    return [run.recipe.student(name) for name in names] if names else run.recipe.students
