"""The service under queries as skewed as a search log, with embedding caches of several sizes.

How: `benchmarks/skew.py` draws the queries; a server a cache size, all on the same core, each with the same stream from
its start. After a warm-up the servers take turns: 32 closed-loop clients, then Poisson arrivals at half of what the
server without a cache does in the same round. Medians over rounds. Everything goes over HTTP.
How to read it: the hit ratio is the server's own count over all that was measured; `ceiling` is the share of the same
requests whose query had been asked before, which is what a cache without bounds would hit. Both still rise with the
length of the run, as in a log: a short replay sees little of what comes again.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median

from rich.table import Table

from artifacts.errors import HlmError
from benchmarks.errors import BenchmarkError
from benchmarks.http_load import Load, request_bytes, run_load
from benchmarks.open_load import OpenLoad
from benchmarks.open_loop import run_open_loop
from benchmarks.queries import read_queries
from benchmarks.servers import Server, add_arguments, cache_of, serving, two_cores
from benchmarks.skew import AOL_SHARES, Law, Replay, fit_law
from benchmarks.tables import wide_console
from terminal import progress

TIMEOUT_MS = 10_000
CLIENTS = 32
HALF = 0.5
CONNECTIONS = 512
SIZES_MIB = (0, 1, 8, 64)
HEADINGS = (
    *("cache MiB", "hit ratio", "ceiling", f"{CLIENTS} clients: queries/s", "p50 ms", "p99 ms"),
    *("Poisson: queries/s", "p50 ms", "p99 ms"),
)


@dataclass(slots=True)
class Subject:
    """A server with a cache of its own size, its stream of queries, and what was measured."""

    size_mib: int
    server: Server
    replay: Replay
    requests: Iterator[bytes]
    closed: list[Load] = field(default_factory=list)
    opened: list[OpenLoad] = field(default_factory=list)
    drawn_before: int = 0
    repeated_before: int = 0
    lookups_before: dict[str, float] = field(default_factory=dict)

    def warm_up(self, seconds: float) -> None:
        """Fill the cache; what follows is measured."""
        run_load(self.server.port, self.requests, clients=CLIENTS, seconds=seconds)
        self.drawn_before, self.repeated_before = self.replay.drawn, self.replay.repeated
        self.lookups_before = self.server.metrics()

    def run_closed(self, seconds: float) -> float:
        """Queries a second of a closed loop."""
        load = run_load(self.server.port, self.requests, clients=CLIENTS, seconds=seconds)
        if load.failed:
            raise BenchmarkError(f"{load.failed} of {load.answered} requests failed")
        self.closed.append(load)
        return load.queries_per_second

    def run_open(self, rate: float, seconds: float) -> None:
        """Poisson arrivals."""
        seed = len(self.opened)
        self.opened.append(
            run_open_loop(
                self.server.port, self.requests, rate=rate, seconds=seconds, seed=seed, connections=CONNECTIONS
            )
        )

    def figures(self) -> dict[str, float | None]:
        """Medians over rounds."""
        drawn = self.replay.drawn - self.drawn_before
        return {
            "cache_mib": self.size_mib,
            "hit_ratio": _rounded(hit_ratio(self.lookups_before, self.server.metrics())),
            "ceiling": _rounded((self.replay.repeated - self.repeated_before) / drawn),
            "closed_qps": _rounded(median(load.queries_per_second for load in self.closed)),
            "closed_p50_ms": _rounded(median(load.p50_ms for load in self.closed)),
            "closed_p99_ms": _rounded(median(load.p99_ms for load in self.closed)),
            "open_qps": _rounded(median(load.achieved_qps for load in self.opened)),
            "open_p50_ms": _rounded(median(load.latency_ms(50) for load in self.opened)),
            "open_p99_ms": _rounded(median(load.latency_ms(99) for load in self.opened)),
        }


def hit_ratio(before: Mapping[str, float], after: Mapping[str, float]) -> float | None:
    """Hits over lookups of the embedding cache between two readings of the metrics; None where there were none."""
    lookups = {
        series: value - before.get(series, 0.0)
        for series, value in after.items()
        if series.startswith("hlm_cache_lookups_total{") and 'cache="embedding"' in series
    }
    hits = sum(value for series, value in lookups.items() if 'result="hit"' in series)
    return hits / sum(lookups.values()) if sum(lookups.values()) else None


def main() -> None:
    """Measure, print the card, and the figures as JSON on the last line."""
    args = _arguments()
    if args.cache_mib[0] != 0:
        raise BenchmarkError("--cache-mib: the first must be 0, which the others are compared with")
    server_core, client_core = two_cores()
    law = fit_law()
    queries = read_queries(args.queries)
    with ExitStack() as stack:
        subjects = []
        for size_mib in args.cache_mib:
            server = stack.enter_context(serving(args, {server_core}, cache_of(size_mib * 2**20)))
            replay = Replay(queries, law, args.seed)
            requests = (request_bytes(query, args.top_k, TIMEOUT_MS) for query in replay.stream())
            subjects.append(Subject(size_mib, server, replay, requests))
        os.sched_setaffinity(0, {client_core})
        advance = stack.enter_context(progress("Measuring", 1 + args.rounds, "rounds"))
        for subject in subjects:
            subject.warm_up(args.warm_seconds)
        advance(1)
        for _ in range(args.rounds):
            _round(subjects, args.seconds)
            advance(1)
        _report(subjects, law)


def _round(subjects: list[Subject], seconds: float) -> None:
    without, *_ = [subject.run_closed(seconds) for subject in subjects]
    for subject in subjects:
        subject.run_open(HALF * without, seconds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--cache-mib", type=int, nargs="+", default=SIZES_MIB, help="sizes, beginning with 0")
    parser.add_argument("--warm-seconds", type=float, default=10.0, help="of replay before the measurements")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the queries drawn")
    return parser.parse_args()


def _report(subjects: list[Subject], law: Law) -> None:
    figures = [subject.figures() for subject in subjects]
    replay = subjects[-1].replay
    table = Table(title=f"One core, {replay.drawn:,} queries drawn from {law.ranks:,} that recur and from the unseen")
    for heading in HEADINGS:
        table.add_column(heading, justify="right")
    for one in figures:
        table.add_row(*("–" if value is None else f"{value:,g}" for value in one.values()))
    console = wide_console()
    console.print(table)
    cumulative = law.cumulative()
    parts = [
        f"{head:,} head queries: {replay.share(head):.1%} (law {cumulative[head - 1]:.1%}, AOL {share:.0%})"
        for head, share in AOL_SHARES.items()
    ]
    console.print(f"Share of volume. {'; '.join(parts)}.")
    console.print(f"Law: {law.scale:.4f} / (rank + {law.shift:.3f}) ** {law.exponent:.4f}")
    shares = {str(head): _rounded(replay.share(head)) for head in AOL_SHARES}
    print(json.dumps({"shares": shares, "caches": figures}))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


if __name__ == "__main__":
    try:
        main()
    except HlmError as error:
        sys.exit(f"error: {error}")
