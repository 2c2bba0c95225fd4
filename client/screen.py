"""How answers and reports look on a terminal."""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from client.ads import Change, Report
from client.evaluate import Evaluation
from client.feed import STANDARD_INPUT, Piece
from client.http import Answer
from client.release import Release, Releases
from terminal import console, progress, waiting

SHOWN_OF_A_RELEASE = {"name", "encoder", "index", "model_version", "index_version"}
NO_EDGE = 100_000
"""Columns of a pipe or a file."""
SHOWN_FAILURES = 20
"""Lines of a feed printed one by one; the others are counted."""
NAMED_FAILURES = 5
"""Failed queries, for each reason, and ads named in a sentence; the JSON report names all."""


def show_answer(answer: Answer, top_k: int) -> None:
    """Print the ads of an answer, how long each stage took, and what made it."""
    console = _console()
    table = Table()
    table.add_column("rank", justify="right", no_wrap=True)
    table.add_column("ad_id", no_wrap=True)
    table.add_column("title")
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("advertiser")
    for rank, ad in enumerate(answer.ads, start=1):
        table.add_row(str(rank), _plain(ad.ad_id), _plain(ad.title), f"{ad.score:.4f}", _plain(ad.advertiser_id))
    console.print(table)
    if not answer.coverage.complete:
        console.print(f"{len(answer.ads):,} of {top_k:,} ads: {_plain(answer.coverage.reason)}")
    timings = "  ".join(f"{_plain(stage)} {duration:.2f} ms" for stage, duration in answer.timings_ms.items())
    console.print(timings, soft_wrap=True)
    console.print(_versions(answer.release, answer.model_version, answer.index_version), soft_wrap=True)


def show_evaluation(evaluation: Evaluation) -> None:
    """Print the measures, on how many queries each rests, and what was measured."""
    console = _console()
    table = Table()
    table.add_column("measure")
    table.add_column("value", justify="right")
    table.add_column("queries", justify="right")
    for measured in evaluation.measures:
        table.add_row(measured.measure, f"{measured.value:.4f}", f"{measured.query_count:,}")
    console.print(table)
    console.print(f"{evaluation.asked_count:,} queries asked, {evaluation.failed_count:,} without an answer")
    console.print(_versions(evaluation.release, evaluation.model_version, evaluation.index_version), soft_wrap=True)


def show_releases(releases: Releases) -> None:
    """Print what is served and what else there is, one release a row."""
    console = _console()
    table = Table()
    for column in ("role", "release", "encoder", "index", "further"):
        table.add_column(column)
    for role, release in releases.by_role.items():
        further = {name: value for name, value in release.items() if name not in SHOWN_OF_A_RELEASE}
        table.add_row(
            role,
            _value(release.get("name")),
            _lines(release, "model_version", "encoder"),
            _lines(release, "index_version", "index"),
            _members(further, "\n"),
        )
    console.print(table)
    for name, value in releases.further.items():
        console.print(f"{_label(name)}: {_value(value)}", soft_wrap=True)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Callable[[Piece], None]]:
    """Show how far a feed is written; gives what is to be called after each piece."""
    if path == STANDARD_INPUT:
        with waiting("Writing ads from standard input"):
            yield lambda _: None
        return
    size = path.stat().st_size if path.is_file() else 0
    with progress(f"Writing {path.name}", size, "bytes") as advance:
        done = 0

        def took(piece: Piece) -> None:
            nonlocal done
            advance(piece.read_bytes - done)
            done = piece.read_bytes

        yield took


def show_report(report: Report, *, as_json: bool) -> None:
    """Print what became of changes."""
    if as_json:
        _console().print(report.model_dump_json(exclude_none=True), soft_wrap=True)
    else:
        _console().print(f"{report.applied:,} applied, {report.failed_count:,} failed, sequence {report.sequence}")


def show_failures(report: Report) -> None:
    """Print the first lines that failed, beside the command's result."""
    for failure in report.failed[:SHOWN_FAILURES]:
        console.print(f"[yellow]line {failure.line}:[/] {escape(_plain(failure.reason))}", soft_wrap=True)
    if report.failed_count > SHOWN_FAILURES:
        console.print(f"[yellow]and {report.failed_count - SHOWN_FAILURES:,} more[/]")


def describe_unknown(report: Report) -> str:
    """One sentence on the ads that there are not."""
    names = [repr(failure.ad_id) for failure in report.failed]
    others = f"; the other {report.applied:,} are done" if report.applied else ""
    return f"there is no ad {_first(names)}{others}"


def show_incomplete(since: int) -> None:
    """Say, beside the command's result, that not all that has changed can be told."""
    console.print(
        f"[yellow]deletions after change {since} may be missing, or the record was restored:[/] compare all ads",
        soft_wrap=True,
    )


def change_line(change: Change, *, as_json: bool) -> str:
    """One ad or campaign that changed, as a line."""
    if as_json:
        return json.dumps(change, ensure_ascii=False)
    sequence, kind = change.get("sequence"), "ad" if "ad_id" in change else "campaign"
    now = change.get(kind)
    id_name = f"{kind}_id"
    members = {name: value for name, value in now.items() if name != id_name} if isinstance(now, dict) else {}
    what = _members(members, "  ") if members else "deleted"
    return f"{sequence}  {kind} {_plain(str(change.get(id_name)))}  {what}"


def describe_failures(evaluation: Evaluation) -> str:
    """One sentence on the queries that got no answer."""
    reasons = []
    for reason, query_ids in evaluation.failures.items():
        reasons.append(f"{reason} ({len(query_ids):,}: {_first(query_ids)})")
    return (
        f"{evaluation.failed_count:,} of {evaluation.asked_count:,} queries got no answer and counted as empty: "
        f"{'; '.join(reasons)}"
    )


def _first(names: Sequence[str]) -> str:
    more = ", …" if len(names) > NAMED_FAILURES else ""
    return f"{', '.join(names[:NAMED_FAILURES])}{more}"


def _console() -> Console:
    """Standard output, where text is printed as it is; only a terminal has an edge at which it is broken or cut."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.file.isatty():
        console.width = NO_EDGE
    return console


def _versions(release: str | None, model_version: str | None, index_version: str | None) -> str:
    return f"release {_plain(release)}  model {_plain(model_version)}  index {_plain(index_version)}"


def _lines(release: Release, *names: str) -> str:
    return "\n".join(_value(release[name]) for name in names if release.get(name) is not None)


def _members(members: dict[str, object], separator: str) -> str:
    return separator.join(f"{_label(name)} {_value(value)}" for name, value in members.items() if value is not None)


def _label(name: str) -> str:
    return _plain(name.replace("_", " "))


def _value(value: object) -> str:
    if isinstance(value, dict):
        return _members(value, ", ")
    if isinstance(value, float):
        return f"{value:.4g}"
    return _plain(f"{value:,}" if type(value) is int else str(value))


def _plain(text: str | None) -> str:
    """Text from outside, without what a terminal would obey."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text or "")
