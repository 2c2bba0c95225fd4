"""What load tests print."""

import json
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from loadtest.result import Phase, Result
from terminal import console

HEADINGS = ("", "offered\n/s", "achieved\n/s", "p50\nms", "p99\nms", "p99.9\nms", "errors", "late\nms", "busy")
LEAST_WIDTH = 100
"""Of the table where nobody looks at it on a terminal."""


def show_result(result: Result) -> None:
    """A row a phase, on standard output; warnings beside it."""
    table = Table(
        title=escape(result.title),
        caption="late: p99 of how long after its time a request was sent; busy: of the generator's core",
    )
    for heading in HEADINGS:
        table.add_column(heading, justify="right" if heading else "left", no_wrap=bool(heading), overflow="fold")
    for phase in result.phases:
        table.add_row(*_cells(phase))
    show_table(table)
    for phase in result.phases:
        for name, count in phase.errors.items():
            console.print(f"{phase.name}: {count:,} × {name}", markup=False, soft_wrap=True)
    for verdict in result.verdicts:
        if not verdict.met:
            console.print(
                f"{verdict.phase}: {verdict.objective} missed with {verdict.found}", markup=False, soft_wrap=True
            )
    for event in result.events:
        style = None if event.done else "bold yellow"
        console.print(f"{event.at_s:.1f} s: {event.name}: {event.outcome}", markup=False, soft_wrap=True, style=style)
    if result.interrupted:
        console.print("[bold yellow]interrupted:[/] this is what was measured by then")
    if result.generator_limits:
        console.print(f"[bold yellow]warning:[/] {limits_message(result)}", soft_wrap=True)


def show_table(table: Table) -> None:
    """On standard output, wide enough to be read where that is no terminal, and without lines on a narrow one."""
    screen = Console(highlight=False)
    if not screen.is_terminal:
        screen.width = max(screen.width, LEAST_WIDTH)
    elif screen.width < LEAST_WIDTH:
        table.box = SIMPLE_HEAD
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


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as one table: `a.b` → value."""
    found: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, dict) and value:
            found |= flat(value, f"{prefix}{name}.")
        elif value not in (None, [], {}, ""):
            found[prefix + name] = _words(value)
    return found


def _words(value: object) -> str:
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return "; ".join(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


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
