"""What load tests print."""

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from loadtest.result import Phase, Result
from terminal import console

HEADINGS = ("", "offered/s", "achieved/s", "p50 ms", "p99 ms", "p99.9 ms", "errors", "late ms", "busy")
LEAST_WIDTH = 100
"""Of the table where nobody looks at it on a terminal."""


def show_result(result: Result) -> None:
    """A row a phase, on standard output; warnings beside it."""
    table = Table(
        title=escape(result.title),
        caption="late: p99 of how long after its time a request was sent; busy: of the generator's core",
    )
    for heading in HEADINGS:
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for phase in result.phases:
        table.add_row(*_cells(phase))
    show_table(table)
    for phase in result.phases:
        for name, count in phase.errors.items():
            console.print(f"{phase.name}: {count:,} × {name}", markup=False)
    if result.generator_limits:
        console.print(f"[bold yellow]warning:[/] {limits_message(result)}", soft_wrap=True)


def show_table(table: Table) -> None:
    """On standard output, wide enough to be read where that is no terminal."""
    screen = Console(highlight=False)
    if not screen.is_terminal:
        screen.width = max(screen.width, LEAST_WIDTH)
    screen.print(table)


def limits_message(result: Result) -> str:
    """Which phases measured the generator rather than the service, and what to do."""
    names = ", ".join(phase.name for phase in result.phases if phase.generator.limits)
    return (
        f"the generator itself may be what was measured in {names}: it was busy or sent late; "
        "use more --workers or a machine of its own"
    )


def milliseconds(value: float | None) -> str:
    """With as many digits as mean something."""
    return "–" if value is None else f"{value:,.2f}" if value < 100 else f"{value:,.0f}"


def show_written(path: Path) -> None:
    """Where something lies now."""
    console.print(f"written: {path}", markup=False, soft_wrap=True)


def _cells(phase: Phase) -> list[str]:
    return [
        escape(phase.name),
        f"{phase.offered_qps:,.1f}",
        f"{phase.achieved_qps:,.1f}",
        *(milliseconds(phase.latency_ms[name]) for name in ("p50", "p99", "p99.9")),
        f"{phase.error_share:.2%}",
        milliseconds(phase.generator.late_ms["p99"]),
        f"{phase.generator.busy_share:.0%}",
    ]
