"""The service against its own bare pipeline, in one run on the same cores.

What it measures: `/retrieve` over HTTP, and tokenise + encode + search in a bare loop (`benchmarks/bare.py`), which no
server in this language and on these libraries can beat.
How: server and bare loop share one core and take turns; the generators (`benchmarks/http_load.py`, `open_loop.py`) have
another. The embedding cache is off, but for `cached_ms`. Rounds alternate, so that a machine that slows down slows all;
ratios are taken within a round, and medians over rounds.
How to read the last line:
- p50_ratio_c1: what a lone caller pays over the bare work: p50 at 1 closed-loop client over the bare p50 at batch 1.
  The service lays its memory in huge pages and the bare loop does not; `p50_ratio_c1_huge_pages` is over one that does.
- throughput_ratio_best: the better of 32 and 64 closed-loop clients over the bare loop's best batch size.
- scaling_2_cores: throughput of a server on both cores over that on one, at 64 clients. The generator has to share the
  two cores; the ratio is corrected for the processor time that it burnt, `scaling_2_cores_raw` is not. What two bare
  loops on the two cores get over one, in the table, is the most that this machine gives.
- p99_over_bare_p50_half_load: p99 at Poisson arrivals of half the one-core throughput, from the moment at which a
  request was due, over the bare p50 at batch 1.
- p99_limit_half_load: the same of the bare loop behind a queue, simulated with the times it took, at the same arrivals:
  what is above it is the server's own.
- cached_ms: of a query in the embedding cache, by the answers' own timings: total less search, median; null where no
  answer came from a cache.
"""

import argparse
import http.client
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle
from statistics import median
from typing import NamedTuple, Self

import orjson
from rich.table import Table

from artifacts.errors import HlmError
from benchmarks.errors import BenchmarkError
from benchmarks.http_load import Load, request_bytes, run_load
from benchmarks.open_load import OpenLoad
from benchmarks.open_loop import run_open_loop
from benchmarks.queries import read_queries
from benchmarks.queueing import least_p99_ms
from benchmarks.servers import CACHE_OFF, Bare, BareLoad, Server, add_arguments, bare_pipeline, serving, two_cores
from benchmarks.tables import wide_console
from terminal import progress

TIMEOUT_MS = 10_000
"""No request may fail by its deadline here: this is about cost, not about overload."""
BARE_BATCH_SIZES = (1, 2, 4, 8, 16, 32)
CLIENTS = (1, 8, 32, 64)
BUSY_CLIENTS = (32, 64)
SCALING_CLIENTS = 64
HALF = 0.5
CONNECTIONS = 512
CACHED_REQUESTS = 300


@dataclass(frozen=True, slots=True)
class Round:
    """Everything once, close together in time."""

    bare: dict[int, BareLoad]
    """One core, by batch size."""
    bare_huge_pages: BareLoad
    """At batch 1, with its memory laid as the service lays its own."""
    bare_both_qps: float
    """Of two bare loops at once, each on a core of its own, at the batch size that was best on one."""
    served: dict[int, Load]
    """By closed-loop clients."""
    half_load: OpenLoad
    half_load_limit_ms: float
    """The p99 of the bare loop behind a queue, at the same arrivals."""
    both_cores: Load
    """A server on both cores at `SCALING_CLIENTS`."""
    cached_ms: float | None

    @property
    def bare_best_qps(self) -> float:
        """Of one bare loop."""
        return max(one.queries_per_second for one in self.bare.values())


def ratios(one: Round) -> dict[str, float | None]:
    """The last line, for one round."""
    bare_p50_ms = one.bare[1].p50_ms
    scaling = one.both_cores.queries_per_second / one.served[SCALING_CLIENTS].queries_per_second
    return {
        "p50_ratio_c1": one.served[1].p50_ms / bare_p50_ms,
        "p50_ratio_c1_huge_pages": one.served[1].p50_ms / one.bare_huge_pages.p50_ms,
        "throughput_ratio_best": max(one.served[n].queries_per_second for n in BUSY_CLIENTS) / one.bare_best_qps,
        "scaling_2_cores": scaling * 2 / (2 - one.both_cores.generator_cpus),
        "scaling_2_cores_raw": scaling,
        "p99_over_bare_p50_half_load": one.half_load.latency_ms(99) / bare_p50_ms,
        "p99_limit_half_load": one.half_load_limit_ms / bare_p50_ms,
        "cached_ms": one.cached_ms,
    }


class Bench:
    """The processes under measurement, and one round of everything."""

    def __init__(self, stack: ExitStack, args: argparse.Namespace) -> None:
        self._cores = two_cores()
        server_core, client_core = self._cores
        self._server = stack.enter_context(serving(args, {server_core}, CACHE_OFF))
        self._both_cores = stack.enter_context(serving(args, set(self._cores), CACHE_OFF))
        self._caching = stack.enter_context(serving(args, {server_core}, {}))
        self._bare = stack.enter_context(bare_pipeline(args, server_core))
        self._huge_pages = stack.enter_context(bare_pipeline(args, server_core, "--huge-pages"))
        self._other_bare = stack.enter_context(bare_pipeline(args, client_core))
        os.sched_setaffinity(0, {client_core})
        queries = read_queries(args.queries)
        self._requests = cycle([request_bytes(query, args.top_k, TIMEOUT_MS) for query in queries])
        self._cached_query = orjson.dumps({"query": queries[0], "top_k": args.top_k, "timeout_ms": TIMEOUT_MS})
        self._seconds: float = args.seconds

    def warm_up(self) -> None:
        """What the first requests cost is not measured."""
        for server in (self._server, self._both_cores):
            run_load(server.port, self._requests, clients=8, seconds=min(1.0, self._seconds))

    def round(self, seed: int) -> Round:
        """Each measurement once; `seed` is that of the arrivals."""
        bare = {
            batch_size: _bare_results([self._bare], batch_size, self._seconds)[0] for batch_size in BARE_BATCH_SIZES
        }
        best = max(bare, key=lambda size: bare[size].queries_per_second)
        both = _bare_results([self._bare, self._other_bare], best, self._seconds)
        served = {clients: self._closed(self._server, clients) for clients in CLIENTS}
        half = HALF * max(served[clients].queries_per_second for clients in BUSY_CLIENTS)
        return Round(
            bare=bare,
            bare_huge_pages=_bare_results([self._huge_pages], 1, self._seconds)[0],
            bare_both_qps=sum(one.queries_per_second for one in both),
            served=served,
            half_load=self._half_load(half, seed),
            half_load_limit_ms=least_p99_ms({size: one.took_ms for size, one in bare.items()}, half, seed),
            both_cores=self._on_both_cores(),
            cached_ms=cached_ms(_answers(self._caching.port, self._cached_query)),
        )

    def _closed(self, server: Server, clients: int, *, awake: bool = True) -> Load:
        load = run_load(server.port, self._requests, clients=clients, seconds=self._seconds, awake=awake)
        if load.failed:
            raise BenchmarkError(f"{load.failed} of {load.answered} requests failed with {clients} clients")
        return load

    def _on_both_cores(self) -> Load:
        """Without polling, and wherever the kernel puts the generator: it must take no more than it needs."""
        own, shared = {self._cores[1]}, set(self._cores)
        os.sched_setaffinity(0, shared)
        try:
            return self._closed(self._both_cores, SCALING_CLIENTS, awake=False)
        finally:
            os.sched_setaffinity(0, own)

    def _half_load(self, rate: float, seed: int) -> OpenLoad:
        load = run_open_loop(
            self._server.port,
            self._requests,
            rate=rate,
            seconds=self._seconds,
            seed=seed,
            connections=CONNECTIONS,
        )
        if load.share(200) < 1:
            raise BenchmarkError(f"{1 - load.share(200):.1%} of the requests failed at half load")
        return load


def _bare_results(loops: list[Bare], batch_size: int, seconds: float) -> list[BareLoad]:
    """Of bare loops that run at once."""
    for loop in loops:
        loop.start(batch_size, seconds)
    return [loop.result() for loop in loops]


def _answers(port: int, body: bytes) -> Iterator[bytes]:
    """One client that repeats one query."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    for _ in range(CACHED_REQUESTS):
        connection.request("POST", "/retrieve", body, {"Content-Type": "application/json"})
        yield connection.getresponse().read()
    connection.close()


def cached_ms(answers: Iterator[bytes]) -> float | None:
    """Median of total less search over the answers from a cache, None if there is none."""
    parsed = [orjson.loads(answer) for answer in answers]
    timings = [answer["timings_ms"] for answer in parsed if answer["cached"]]
    return median(one["total"] - one["search"] for one in timings) if timings else None


def main() -> None:
    """Measure, print the card, and the figures as JSON on the last line."""
    args = _arguments()
    with ExitStack() as stack:
        bench = Bench(stack, args)
        advance = stack.enter_context(progress("Measuring", args.rounds, "rounds"))
        bench.warm_up()
        rounds = []
        for number in range(args.rounds):
            rounds.append(bench.round(seed=number))
            advance(1)
    _report(rounds, args)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    return parser.parse_args()


def _report(rounds: list[Round], args: argparse.Namespace) -> None:
    table = Table(title=f"top_k {args.top_k}, medians of {len(rounds)} rounds (least – most)")
    for heading in ("", "queries/s", "p50 ms", "p99 ms"):
        table.add_column(heading, justify="right" if heading else "left")
    for batch_size in BARE_BATCH_SIZES:
        table.add_row(f"bare loop, batch {batch_size}", *_cells([one.bare[batch_size] for one in rounds]))
    table.add_row("bare loop, batch 1, huge pages", *_cells([one.bare_huge_pages for one in rounds]))
    table.add_row("bare loops, one on each of two cores", _cell([one.bare_both_qps for one in rounds], 0))
    for clients in CLIENTS:
        table.add_row(f"served, {clients} clients", *_cells([one.served[clients] for one in rounds]))
    table.add_row("served, half of that, Poisson", *_cells([_Figures.of(one.half_load) for one in rounds]))
    table.add_row(f"served on two cores, {SCALING_CLIENTS} clients", *_cells([one.both_cores for one in rounds]))
    console = wide_console()
    console.print(table)
    limit = median(one.bare_both_qps / one.bare_best_qps for one in rounds)
    burnt = median(one.both_cores.generator_cpus for one in rounds)
    late = median(one.half_load.lateness_ms(99) for one in rounds)
    console.print(
        f"Two bare loops on two cores: {limit:.2f} × one. The generator burnt {burnt:.2f} of the two cores.\n"
        f"At half load it sent p99 {late:.2f} ms late."
    )
    print(json.dumps(medians([ratios(one) for one in rounds])))


def medians(rounds: list[dict[str, float | None]]) -> dict[str, float | None]:
    """Over rounds, by name; None where no round has a value."""
    found: dict[str, float | None] = {}
    for name in rounds[0]:
        values = [value for one in rounds if (value := one[name]) is not None]
        found[name] = round(median(values), 3) if values else None
    return found


class _Figures(NamedTuple):
    """A row of the table."""

    queries_per_second: float
    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, load: OpenLoad) -> Self:
        return cls(load.achieved_qps, load.latency_ms(50), load.latency_ms(99))


def _cells(results: Sequence[_Figures | BareLoad | Load]) -> list[str]:
    columns = (("queries_per_second", 0), ("p50_ms", 2), ("p99_ms", 2))
    return [_cell([getattr(result, name) for result in results], digits) for name, digits in columns]


def _cell(values: list[float], digits: int) -> str:
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f} – {max(values):,.{digits}f})"


if __name__ == "__main__":
    try:
        main()
    except HlmError as error:
        sys.exit(f"error: {error}")
