"""What long commands show: progress bars on a terminal, a line every few seconds in a log; and tables."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

LOG_INTERVAL_S = 5.0
"""How often a log gets a line; bars on a terminal refresh by themselves."""

PIPE_COLUMNS = 200
"""Width of a table in a file or pipe, which has none that is known."""


class Advance(Protocol):
    """Says how many units were finished since the last call, and in a few words how it goes; from any thread."""

    def __call__(self, count: int, detail: str = "") -> None:
        """Count some units as finished."""
        ...


console = Console(stderr=True, highlight=False, emoji=False)
"""For everything that is not the command's result; the result goes to standard output."""


def show_table(table: Table) -> None:
    """Print a table that is the command's result, as wide as a terminal is; elsewhere wide enough to cut no row."""
    width = None if sys.stdout.isatty() else PIPE_COLUMNS
    Console(width=width, highlight=False, markup=False, emoji=False).print(table)


@contextlib.contextmanager
def progress(label: str, total: int, unit: str, *, done: int = 0, rate: bool = True) -> Iterator[Advance]:
    """Show the progress of one task with count, rate and time left.

    Args:
        label: what is being done, for example `Embedding ads`.
        total: units in the whole task.
        unit: what is counted, in the plural.
        done: units that an earlier run had finished; they do not count towards the rate.
        rate: whether units a second are shown; of seconds they say nothing.
    """
    show = _bar if console.is_terminal else _log_lines
    with show(label, total, unit, done, rate) as advance:
        yield advance


@contextlib.contextmanager
def waiting(label: str) -> Iterator[None]:
    """Show that something takes long whose progress cannot be seen: the time on a terminal, lines in a log.

    Args:
        label: what is waited for, for example `Loading release 2026-11-23a`.
    """
    if not console.is_terminal:
        console.print(f"{label} …", markup=False, soft_wrap=True)
        with repeatedly(LOG_INTERVAL_S, lambda s: console.print(f"{label}: {s:,.0f} s", markup=False, soft_wrap=True)):
            yield
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as shown:
        shown.add_task(label, total=None)
        yield


@contextlib.contextmanager
def repeatedly(interval_s: float, say: Callable[[float], object]) -> Iterator[None]:
    """Have something said from another thread as long as the block runs, which nothing else could say.

    Args:
        interval_s: between two times.
        say: is given the seconds since the start.
    """
    done, started = threading.Event(), time.monotonic()

    def run() -> None:
        while not done.wait(interval_s):
            say(time.monotonic() - started)

    thread = threading.Thread(target=run, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = (task.finished_speed or task.speed) if task.fields["rate"] else None
        return Text(f"{_rate(speed)} {task.fields['unit']}/s" if speed else "", style="progress.data.speed")


def _rate(per_second: float) -> str:
    """Whole where that says enough: a step of a large model takes seconds."""
    return f"{per_second:,.0f}" if per_second >= 10 else f"{per_second:.2g}"


@contextlib.contextmanager
def _bar(label: str, total: int, unit: str, done: int, rate: bool) -> Iterator[Advance]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeRemainingColumn(table_column=Column(no_wrap=True, min_width=7)),  # the detail gives way, not this
        TextColumn("{task.fields[detail]}", markup=False),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(label, total=total, completed=done, unit=unit, detail="", rate=rate)
        yield lambda count, detail="": bar.update(task, advance=count, detail=detail)


@contextlib.contextmanager
def _log_lines(label: str, total: int, unit: str, done: int, rate: bool) -> Iterator[Advance]:
    started = last_line = time.monotonic()
    finished = done
    counting = threading.Lock()

    def advance(count: int, detail: str = "") -> None:
        nonlocal finished, last_line
        with counting:
            finished += count
            now = time.monotonic()
            if now - last_line >= LOG_INTERVAL_S:
                last_line = now
                speed = (finished - done) / (now - started)
                fast = f", {_rate(speed)}/s" if rate else ""
                left = f", {(total - finished) / speed:,.0f} s left" if speed else ""
                how = f", {detail}" if detail else ""
                console.print(f"{label}: {finished:,} of {total:,} {unit}{fast}{left}{how}", soft_wrap=True)

    yield advance
    console.print(f"{label}: {finished:,} of {total:,} {unit} in {time.monotonic() - started:,.1f} s")
