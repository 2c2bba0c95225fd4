"""Two results beside each other, load by load."""

from rich.markup import escape
from rich.table import Table

from loadtest.errors import LoadTestError
from loadtest.result import Capacity, Phase, Result
from loadtest.screen import flat, show_table
from terminal import console


def show_comparison(one: Result, other: Result, names: tuple[str, str]) -> None:
    """A row a figure of each load that both have, on standard output; settings that differ beside it.

    Raises:
        LoadTestError: they have none in common.
    """
    others = {phase.name: phase for phase in other.phases}
    pairs = [(phase, others[phase.name]) for phase in one.phases if phase.name in others]
    if one.capacity and other.capacity:
        pairs = []  # of the search for it, no step is worth a comparison
    elif not pairs:
        raise LoadTestError(f"{names[0]} and {names[1]} have no load of the same name")
    table = Table()
    for heading in ("", "", *names, "change"):
        table.add_column(escape(heading), justify="right" if heading else "left", overflow="fold")
    if one.capacity and other.capacity:
        _add_capacities(table, one.capacity, other.capacity)
    for before, after in pairs:
        for number, (name, (first, second)) in enumerate(_figures(before, after).items()):
            table.add_row(
                "" if number else escape(before.name), name, _shown(first), _shown(second), _change(first, second)
            )
        table.add_section()
    show_table(table)
    _show_differences(one, other)


def _add_capacities(table: Table, before: Capacity, after: Capacity) -> None:
    rates = {"capacity/s": (before.rate, after.rate), "knee/s": (before.knee_rate, after.knee_rate)}
    for number, (name, (first, second)) in enumerate(rates.items()):
        bound = "" if number else before.bound
        table.add_row(escape(bound), name, _shown(first), _shown(second), _change(first, second))


def _show_differences(one: Result, other: Result) -> None:
    """What else differs: figures of unlike tests are not each other's before and after."""
    kinds = [(one.settings, other.settings), (one.versions, other.versions), (one.service, other.service)]
    for first, second in ((flat(before), flat(after)) for before, after in kinds):
        for name in [name for name in first | second if first.get(name) != second.get(name)]:
            line = f"differs: {name}: {first.get(name, '–')} → {second.get(name, '–')}"
            console.print(line, markup=False, soft_wrap=True)
    for phase in [*one.phases, *other.phases]:
        if phase.generator.limits:
            console.print(f"differs perhaps by the generator alone: {phase.name}", markup=False, soft_wrap=True)


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
