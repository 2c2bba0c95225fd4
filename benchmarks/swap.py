"""Releases swapped under load, good ones and bad ones: nothing may fail, no answer may be of two releases.

What it measures: requests that were not answered 200 and answers with parts of more than one release, over many swaps
under constant open-loop load; the p99 of the stretches with a swap against equal stretches without, taken in turns; and
resident memory at the end against that of one release.
How: the server has one core, the clients another. Two indexes have the same ads under different ids and every swap has
a name of its own, so an answer shows what made each part of it. Swaps come by a renamed configuration file, one that is
written in place, `hlm release use` and `hlm release rollback` in turn; every fifth brings another encoder as well. The
rate is a share of what the slower encoder can do, and the embedding cache is off, so that every answer was encoded. A
stretch with a swap lasts until the release before is dropped, so that freeing its memory is in it.
Then releases that must be refused, each under load: the one before goes on serving; `/info` and the metrics say why.
Last, SIGTERM while a release is being loaded: exit code 0, and all that was accepted is answered.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from rich.table import Table

from artifacts.errors import HlmError
from benchmarks.http_load import request_bytes
from benchmarks.load_process import load_process
from benchmarks.queries import read_queries
from benchmarks.servers import two_cores
from benchmarks.stretches import CELL_HEADINGS
from benchmarks.swap_answers import KnownRelease, known_release
from benchmarks.swap_artifacts import bad_releases, build_indexes
from benchmarks.swap_check import GRACE_MS, Check
from benchmarks.swap_plan import WAYS, Step, first_release, plan_swaps, together
from benchmarks.swap_server import SwapServer
from benchmarks.tables import wide_console

TIMEOUT_MS = 10_000
"""The most there is: a request that fails here was lost, not late."""
TERM_AFTER_S = (0.05, 0.5, 1.5)
"""SIGTERM so long after a release was asked for: before, while and after it is loaded."""
MEMORY_PATIENCE_S = 10.0
RSS_GOAL = 1.1

Refusals = dict[str, tuple[bool, str]]
"""By what is wrong: whether it was refused, and the reason that was given."""


def main() -> None:
    """Measure, print the card, and the figures as JSON on the last line."""
    args = _arguments()
    encoders = (args.encoder, args.other_encoder)
    server_core, client_core = two_cores()
    indexes = build_indexes(args.feed, args.encoder, args.work)
    requests = [request_bytes(query, args.top_k, TIMEOUT_MS) for query in read_queries(args.queries)]
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="swap-", dir=args.work)))
        os.sched_setaffinity(0, {client_core})
        load = stack.enter_context(load_process(requests, {client_core}))
        server = SwapServer(directory, {server_core}, keep_previous_ms=args.keep_previous_ms, grace_ms=GRACE_MS)
        stack.callback(server.replica.kill)
        check = Check(server, load, args.seconds)
        first = first_release(args.encoder, indexes[0])
        rss_bytes = _start(check, first, args)
        for steps in together(plan_swaps(first, encoders, indexes, args.swaps)):
            _swap(check, steps)
        final = known_release("swap-final", args.encoder, indexes[0])
        _swap(check, [Step(WAYS[0], final)])
        rss_ratio = _settled_rss(check, rss_bytes) / rss_bytes
        refusals = _refuse(check, final, directory)
        _end(check, final, indexes[1], TERM_AFTER_S[1:2] if args.swaps < len(TERM_AFTER_S) * 5 else TERM_AFTER_S)
    _report(check, refusals, rss_ratio, args)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", type=Path, required=True, help="encoder artifact that most releases have")
    parser.add_argument("--other-encoder", type=Path, required=True, help="one of the same space; every fifth swap's")
    parser.add_argument("--feed", type=Path, required=True, help="ads: gzipped JSON lines")
    parser.add_argument("--work", type=Path, default=Path("var/swap"), help="where indexes and damaged artifacts go")
    parser.add_argument("--queries", type=Path, help="tab-separated with a column text; default: 1,000 shipped ones")
    parser.add_argument("--top-k", type=int, default=100)
    parser.add_argument("--swaps", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=5.0, help="of a stretch; a longer swap takes several")
    parser.add_argument("--load", type=float, default=0.6, help="share of the slower encoder's capacity")
    parser.add_argument("--keep-previous-ms", type=int, default=3_000, help="swap.keep_previous_ms of the server")
    return parser.parse_args()


def _start(check: Check, first: KnownRelease, args: argparse.Namespace) -> int:
    """Start the server, find the rate, and give the resident memory of one release."""
    slower = known_release("swap-slower", args.other_encoder, first.index)
    check.known |= {release.name: release for release in (first, slower)}
    check.server.start(slower)
    check.measure_rate(args.load)
    check.server.replica.begin_to_stop()
    check.server.replica.wait_until_gone()
    check.server.start(first)
    check.run()
    return check.server.rss_bytes


def _swap(check: Check, steps: list[Step]) -> None:
    """Swaps under load, and as many equal stretches without."""
    loads = check.during(lambda: check.swap(steps))
    check.swapping.loads += loads
    check.quiet.loads += [check.run() for _ in loads]


def _settled_rss(check: Check, goal: int) -> int:
    """Resident memory under load, once it is down to the goal or after the time that it has for that."""
    gives_up = time.monotonic() + MEMORY_PATIENCE_S
    while (rss := check.server.rss_bytes) > RSS_GOAL * goal and time.monotonic() < gives_up:
        check.quiet.loads.append(check.run(1.0))
    return rss


def _refuse(check: Check, served: KnownRelease, directory: Path) -> Refusals:
    """Ask for each bad release, and then for the good one again."""
    server, found = check.server, Refusals()
    good = server.config_of(served)

    def ask(title: str, config: str, name: str | None, reason_has: str) -> None:
        def act() -> None:
            refused, reason = server.refuses(config, name)
            found[title] = (refused and reason_has in reason, reason)
            server.write(good)

        check.refusing.loads += check.during(act)

    for bad in bad_releases(served.encoder, served.index, directory):
        asked = KnownRelease(bad.title, bad.encoder, bad.index, "", "", "")
        ask(bad.title, server.config_of(asked), bad.title, bad.reason_has)
    ask("config that is no YAML", good + "release: {name: [", None, str(server.config))
    return found


def _end(check: Check, served: KnownRelease, other_index: Path, after_s: tuple[float, ...]) -> None:
    """SIGTERM while a release is on its way."""
    for number, seconds in enumerate(after_s):
        if number:
            check.server.start(served)
        check.end_during_swap(known_release(f"swap-last-{number}", served.encoder, other_index), seconds)


def _report(check: Check, refusals: Refusals, rss_ratio: float, args: argparse.Namespace) -> None:
    console = wide_console()
    rows = {
        "without a swap": check.quiet,
        "with a swap": check.swapping,
        "with a bad release": check.refusing,
        "SIGTERM during a swap": check.ending,
    }
    table = Table("", title=f"{check.rate:,.0f} requests a second, {args.swaps} swaps and one back")
    for heading in CELL_HEADINGS:
        table.add_column(heading, justify="right")
    for name, stretches in rows.items():
        table.add_row(name, *stretches.cells())
    console.print(table)
    table = Table("bad release", "refused", "reason in /info")
    for title, (refused, reason) in refusals.items():
        table.add_row(title, "yes" if refused else "NO", reason)
    console.print(table)
    figures = {
        "swaps": args.swaps,
        "failed": sum(stretches.failed for stretches in rows.values()),
        "mixed": check.mixed,
        "p99_ratio": round(check.swapping.latency_ms(99) / check.quiet.latency_ms(99), 3),
        "bad_artifacts": len(refusals),
        "bad_artifacts_refused": sum(refused for refused, _ in refusals.values()),
        "rss_ratio": round(rss_ratio, 3),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    try:
        main()
    except HlmError as error:
        sys.exit(f"error: {error}")
