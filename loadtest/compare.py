"""Two results beside each other, load by load."""

from rich.markup import escape
from rich.table import Table

from loadtest.errors import LoadTestError
from loadtest.result import Phase, Result
from loadtest.screen import show_table


def show_comparison(one: Result, other: Result, names: tuple[str, str]) -> None:
    """A row a figure of each load that both have, on standard output.

    Raises:
        LoadTestError: they have none in common.
    """
    others = {phase.name: phase for phase in other.phases}
    pairs = [(phase, others[phase.name]) for phase in one.phases if phase.name in others]
    if not pairs:
        raise LoadTestError(f"{names[0]} and {names[1]} have no load of the same name")
    table = Table()
    for heading in ("", "", *names, "change"):
        table.add_column(escape(heading), justify="right" if heading else "left", no_wrap=True)
    for before, after in pairs:
        for number, (name, (first, second)) in enumerate(_figures(before, after).items()):
            table.add_row(
                "" if number else escape(before.name), name, _shown(first), _shown(second), _change(first, second)
            )
        table.add_section()
    show_table(table)


def _figures(before: Phase, after: Phase) -> dict[str, tuple[float | None, float | None]]:
    return {
        "offered/s": (before.offered_qps, after.offered_qps),
        "achieved/s": (before.achieved_qps, after.achieved_qps),
        **{f"{name}, ms": (before.latency_ms[name], after.latency_ms[name]) for name in ("p50", "p90", "p99", "p99.9")},
        "errors, %": (before.error_share * 100, after.error_share * 100),
        "server p50, ms": (before.stages_ms["total"]["p50"], after.stages_ms["total"]["p50"]),
        "generator busy, %": (before.generator.busy_share * 100, after.generator.busy_share * 100),
    }


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:,.2f}"


def _change(first: float | None, second: float | None) -> str:
    return f"{second / first - 1:+.1%}" if first and second is not None else ""
