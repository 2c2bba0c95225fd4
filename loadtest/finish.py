"""The end of a load test: what is shown, what is written, and what a pipeline is told."""

from pathlib import Path

import typer

from loadtest.errors import LoadTestError
from loadtest.report import write_report
from loadtest.result import Result
from loadtest.screen import show_result, show_written

MISSED = 3
UNTRUSTED = 4
UNDONE = 5
INTERRUPTED = 130


def finish(result: Result, out: Path | None, report: Path | None) -> None:
    """Show the result, and write it and a page about it where asked to.

    Raises:
        LoadTestError: one of them cannot be written.
    """
    show_result(result)
    try:
        if out:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(result.model_dump_json(indent=1))
            show_written(out)
        if report:
            show_written(write_report(result, report)[0])
    except OSError as error:
        raise LoadTestError(f"{error.filename or out or report}: cannot be written ({error.strerror})") from error


def end(result: Result) -> None:
    """Leave the command with the exit code that the result asks for.

    Raises:
        LoadTestError: nothing was asked of the result, and there is nothing in it.
    """
    code = exit_code(result)
    if not code and not result.verdicts and not result.good_requests:
        if not result.requests:
            raise LoadTestError("no request was due, so nothing was measured; expected a higher rate or more seconds")
        raise LoadTestError("no request was answered well, so nothing but errors was measured; they are named above")
    if code:
        raise typer.Exit(code)


def exit_code(result: Result) -> int:
    """As in docs/loadtest.md."""
    if result.interrupted:
        return INTERRUPTED
    missed = {verdict.phase for verdict in result.verdicts if not verdict.met}
    if missed:
        limited = any(phase.generator.limits for phase in result.phases if phase.name in missed)
        return UNTRUSTED if limited else MISSED
    return 0 if all(event.done for event in result.events) else UNDONE
