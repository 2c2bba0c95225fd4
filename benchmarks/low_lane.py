"""What the low lane costs those who cannot wait: single requests at half load, with `/retrieve/batch` busy and idle.

What it measures: p99 of `POST /retrieve` under Poisson arrivals at half of the server's capacity, counted from the
moment at which a request was due, while two callers keep the low lane full and while none does; and how many queries
the low lane answers beside that load. The embedding cache is off.
How: the server has one core, generator and callers another. Each round measures both sides, one after the other, in an
order that alternates; the ratio is taken within the round, and the median over rounds.
How to read the last line: p99_ratio is at most 1.10 if the lane keeps its promise; low_lane_qps is what it finds time
for beside the single requests.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from itertools import cycle
from statistics import median

import orjson
from rich.table import Table

from artifacts.errors import HlmError
from benchmarks.errors import BenchmarkError
from benchmarks.http_load import request_bytes, run_load
from benchmarks.open_load import OpenLoad
from benchmarks.open_loop import run_open_loop
from benchmarks.queries import read_queries
from benchmarks.servers import CACHE_OFF, Server, add_arguments, serving, two_cores
from benchmarks.tables import wide_console
from terminal import progress

TIMEOUT_MS = 10_000
"""No request may fail by its deadline here: this is about delay."""
HALF = 0.5
CALLERS = 2
CONNECTIONS = 512
OFFLINE_QUERIES = 'hlm_offline_queries_total{outcome="ok"}'


@dataclass(frozen=True, slots=True)
class Round:
    """Single requests beside an empty lane, and beside a full one."""

    empty: OpenLoad
    full: OpenLoad
    low_lane_qps: float
    """Beside the single requests."""

    @property
    def p99_ratio(self) -> float:
        """How many times as long the slowest hundredth takes beside a full lane."""
        return self.full.latency_ms(99) / self.empty.latency_ms(99)


class Bench:
    """The server under measurement, and one round of both sides."""

    def __init__(self, stack: ExitStack, args: argparse.Namespace) -> None:
        server_core, client_core = two_cores()
        self._server = stack.enter_context(serving(args, {server_core}, CACHE_OFF))
        os.sched_setaffinity(0, {client_core})
        self._queries = read_queries(args.queries)
        self._requests = cycle([request_bytes(query, args.top_k, TIMEOUT_MS) for query in self._queries])
        self._top_k: int = args.top_k
        self._seconds: float = args.seconds
        run_load(self._server.port, self._requests, clients=8, seconds=1)
        self.rate: float = args.rate or HALF * self._capacity()

    def round(self, number: int) -> Round:
        """Both sides with the same arrivals; odd rounds begin with the full lane."""
        if number % 2:
            full, low_lane_qps = self._full(number)
            return Round(self._single(number), full, low_lane_qps)
        empty = self._single(number)
        return Round(empty, *self._full(number))

    def _capacity(self) -> float:
        """Single requests a second."""
        return run_load(self._server.port, self._requests, clients=32, seconds=self._seconds / 2).queries_per_second

    def _single(self, seed: int) -> OpenLoad:
        load = run_open_loop(
            self._server.port,
            self._requests,
            rate=self.rate,
            seconds=self._seconds,
            seed=seed,
            connections=CONNECTIONS,
        )
        if load.share(200) < 1:
            raise BenchmarkError(f"{1 - load.share(200):.1%} of the single requests failed")
        return load

    def _full(self, seed: int) -> tuple[OpenLoad, float]:
        with callers(self._server, self._queries, self._top_k):
            before, started = self._server.metrics()[OFFLINE_QUERIES], time.perf_counter()
            load = self._single(seed)
            answered = self._server.metrics()[OFFLINE_QUERIES] - before
            return load, answered / (time.perf_counter() - started)


@contextmanager
def callers(server: Server, queries: list[str], top_k: int) -> Iterator[None]:
    """Keep the low lane full during the block, from processes that give way to the generator."""
    body = orjson.dumps({"queries": queries[:1_000], "top_k": top_k}).decode()
    code = f"from benchmarks.low_lane import call_forever; call_forever({server.port}, {body!r}.encode())"
    before = server.metrics()[OFFLINE_QUERIES]
    processes = [subprocess.Popen(["nice", "-n", "19", sys.executable, "-c", code]) for _ in range(CALLERS)]
    try:
        while server.metrics()[OFFLINE_QUERIES] == before:
            if any(process.poll() is not None for process in processes):
                raise BenchmarkError("a caller of /retrieve/batch ended; its error is above")
            time.sleep(0.05)
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def call_forever(port: int, body: bytes) -> None:
    """Send one request of many queries after the other, and read their lines."""
    connection = HTTPConnection("127.0.0.1", port)
    while True:
        connection.request("POST", "/retrieve/batch", body)
        answer = connection.getresponse()
        if answer.status != 200:
            raise BenchmarkError(f"/retrieve/batch answers {answer.status}")
        while answer.read1(1 << 20):
            pass


def main() -> None:
    """Measure, print the card, and the figures as JSON on the last line."""
    args = _arguments()
    with ExitStack() as stack:
        bench = Bench(stack, args)
        advance = stack.enter_context(progress("Measuring", args.rounds, "rounds"))
        rounds = []
        for number in range(args.rounds):
            rounds.append(bench.round(number))
            advance(1)
    _report(rounds, bench.rate, args.top_k)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--rate", type=float, help="single requests a second, instead of half the capacity")
    return parser.parse_args()


def _report(rounds: list[Round], rate: float, top_k: int) -> None:
    table = Table(
        title=f"One core, {rate:.0f} single requests a second, top_k {top_k}, medians of {len(rounds)} rounds"
    )
    for heading in ("(least – most)", "p50 ms", "p90 ms", "p99 ms"):
        table.add_column(heading, justify="right" if heading else "left")
    for side in ("empty", "full"):
        loads: list[OpenLoad] = [getattr(one, side) for one in rounds]
        table.add_row(f"low lane {side}", *(_cell([load.latency_ms(p) for load in loads]) for p in (50, 90, 99)))
    wide_console().print(table)
    figures = {
        "p99_ratio": round(median(one.p99_ratio for one in rounds), 3),
        "low_lane_qps": round(median(one.low_lane_qps for one in rounds), 1),
    }
    print(json.dumps(figures))


def _cell(values: list[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f} – {max(values):.2f})"


if __name__ == "__main__":
    try:
        main()
    except HlmError as error:
        sys.exit(f"error: {error}")
