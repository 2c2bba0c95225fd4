"""What the low lane costs those who cannot wait: single requests at half load, with `/retrieve/batch` busy and idle.

What it measures: p99 of `POST /retrieve` under Poisson arrivals at a share of the server's capacity, counted from the
intended send (`benchmarks/open_loop.py`), while two callers keep the low lane full and while none does; and how many
queries the low lane answers beside that load.
How: the server has one core, generator and callers another. A round measures both sides on one server, one after the
other, in an order that alternates; the ratio is taken within the round, and the median over rounds.
How to read it: `p99_ratio` is at most 1.10 if the lane keeps its promise; `low_lane_qps` is what it finds time for.
`--variants` compares ways to make a thread give way, for docs/experiments.md, "low lane".
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from itertools import cycle
from pathlib import Path
from statistics import median

import orjson
from rich.console import Console
from rich.table import Table

from artifacts.errors import HlmError
from benchmarks.errors import BenchmarkError
from benchmarks.http_load import request_bytes, run_load
from benchmarks.open_loop import OpenLoad, run_open_loop
from benchmarks.queries import read_queries

TIMEOUT_MS = 10_000
"""No request may fail by its deadline here: this is about delay."""
CALLERS = 2
CONNECTIONS = 64

_NORMAL = "import service.low_lane as lane; lane.lower_own_priority = lambda: None\n"
_NICE = (
    "import os, threading, service.low_lane as lane\n"
    "lane.lower_own_priority = lambda: os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)\n"
)
_SWITCH = "import sys; sys.setswitchinterval(0.0005)\n"
_NO_BREATH = "import service.offline_retriever as offline; offline.breathe = lambda: None\n"
VARIANTS = {
    "as it is": "",
    "without breathing": _NO_BREATH,
    "switch interval 0.5 ms": _SWITCH,
    "nice 19": _NICE,
    "normal priority": _NORMAL,
    "normal priority, switch interval 0.5 ms": _NORMAL + _SWITCH,
}
"""What is done to the server before it starts."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One round: single requests beside an empty and beside a full lane."""

    empty: OpenLoad
    full: OpenLoad
    low_lane_qps: float

    @property
    def p99_ratio(self) -> float:
        """How much longer the slowest hundredth takes beside a full lane."""
        return self.full.latency_ms(99) / self.empty.latency_ms(99)


def main() -> None:
    """Measure, print the card, and the figures as JSON on the last line."""
    args = _arguments()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise BenchmarkError("needs two cores: one for the server, one for the clients")
    os.sched_setaffinity(0, {cores[1]})
    names = list(VARIANTS) if args.variants else list(VARIANTS)[:1]
    pairs: dict[str, list[Pair]] = {name: [] for name in names}
    for number in range(args.rounds):
        for name in names:
            with _server(args, cores[0], VARIANTS[name]) as port:
                args.rate = args.rate or _capacity(args, port) * args.load
                pairs[name].append(_pair(args, port, number))
    _report(pairs, args)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument(
        "--queries", type=Path, help="query_id<TAB>text with a header line; default: those of the export"
    )
    parser.add_argument("--top-k", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--load", type=float, default=0.5, help="share of the capacity that single requests take")
    parser.add_argument("--rate", type=float, help="single requests a second, instead of a share of the capacity")
    parser.add_argument("--variants", action="store_true", help="compare ways to give way")
    return parser.parse_args()


@contextmanager
def _server(args: argparse.Namespace, core: int, prelude: str) -> Iterator[int]:
    """The service on one core, changed by a few lines of Python; yields its port."""
    options = ["serve", "--name", "bench", "--port", "0", "--encoder", str(args.encoder), "--index", str(args.index)]
    code = f"{prelude}import sys, hlm; sys.argv = ['hlm', *{options!r}]; hlm.main()"
    command = ["taskset", "-c", str(core), sys.executable, "-c", code]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "HLM_SERVER__LOG_LEVEL": "warning"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if "http://" not in line:
            raise BenchmarkError("the server did not start; its error is above")
        yield int(line.split("http://")[1].split(":")[1])
    finally:
        process.kill()
        process.wait()


def _requests(args: argparse.Namespace) -> Iterator[bytes]:
    return cycle([request_bytes(query, args.top_k, TIMEOUT_MS) for query in read_queries(args.queries)])


def _capacity(args: argparse.Namespace, port: int) -> float:
    """Single requests a second that the server can answer, with its lane empty."""
    run_load(port, _requests(args), clients=8, seconds=1)
    return run_load(port, _requests(args), clients=32, seconds=args.seconds / 2).queries_per_second


def _pair(args: argparse.Namespace, port: int, number: int) -> Pair:
    run_load(port, _requests(args), clients=8, seconds=1)
    if number % 2:
        full, low_lane_qps = _full(args, port, number)
        return Pair(_single(args, port, number), full, low_lane_qps)
    empty = _single(args, port, number)
    return Pair(empty, *_full(args, port, number))


def _single(args: argparse.Namespace, port: int, seed: int) -> OpenLoad:
    load = run_open_loop(
        port, _requests(args), rate=args.rate, seconds=args.seconds, seed=seed, connections=CONNECTIONS
    )
    if load.share(200) < 1:
        raise BenchmarkError(f"{1 - load.share(200):.1%} of the single requests failed")
    return load


def _full(args: argparse.Namespace, port: int, seed: int) -> tuple[OpenLoad, float]:
    """Single requests, and the low lane's queries a second, while callers keep the lane full."""
    queries = orjson.dumps({"queries": read_queries(args.queries)[:1_000], "top_k": args.top_k}).decode()
    code = f"from benchmarks.low_lane import call_forever; call_forever({port}, {queries!r}.encode())"
    callers = [subprocess.Popen(["nice", "-n", "19", sys.executable, "-c", code]) for _ in range(CALLERS)]
    try:
        while _answered_offline(port) == 0:
            time.sleep(0.05)
        before, started = _answered_offline(port), time.perf_counter()
        load = _single(args, port, seed)
        return load, (_answered_offline(port) - before) / (time.perf_counter() - started)
    finally:
        for caller in callers:
            caller.kill()
            caller.wait()


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


def _answered_offline(port: int) -> float:
    connection = HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/metrics")
    page = connection.getresponse().read().decode()
    connection.close()
    return float(page.split('hlm_offline_queries_total{outcome="ok"} ')[1].split("\n")[0])


def _report(pairs: dict[str, list[Pair]], args: argparse.Namespace) -> None:
    title = f"One core, {args.rate:.0f} single requests a second, top_k {args.top_k}, medians of {args.rounds} rounds"
    table = Table(title=f"{title} (least – most)")
    for heading in ("", "p50 ms, empty", "full", "p99 ms, empty", "full", "p99 ratio", "low lane, queries/s"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, found in pairs.items():
        columns = [[getattr(one, side).latency_ms(p) for one in found] for p in (50, 99) for side in ("empty", "full")]
        columns.append([one.p99_ratio for one in found])
        table.add_row(name, *map(_cell, columns), f"{median(one.low_lane_qps for one in found):.0f}")
    Console().print(table)
    first = next(iter(pairs.values()))
    figures = {
        "p99_ratio": round(median(one.p99_ratio for one in first), 3),
        "low_lane_qps": round(median(one.low_lane_qps for one in first), 1),
    }
    print(json.dumps(figures))


def _cell(values: list[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f} – {max(values):.2f})"


if __name__ == "__main__":
    try:
        main()
    except HlmError as error:
        sys.exit(f"error: {error}")
