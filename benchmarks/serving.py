"""The service against its own bare pipeline, in one run on one core.

What it measures: `/retrieve` over HTTP with 1 and with 32 closed-loop clients, and tokenise + encode + search in a bare
loop (`benchmarks/bare.py`), which no server in this language and on these libraries can beat.
How: server and bare loop share one core and take turns; the generator (`benchmarks/http_load.py`) has another. Rounds
alternate, so that a machine that slows down slows both; ratios are taken within a round, and medians over rounds.
How to read it: `p50_ratio_c1` is what a lone caller pays over the bare work, `throughput_ratio_c32` the share of the
bare loop's best throughput that is left under load.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from artifacts.errors import HlmError
from benchmarks.errors import BenchmarkError
from benchmarks.http_load import Load, request_bytes, run_load
from benchmarks.queries import read_queries
from terminal import progress

TIMEOUT_MS = 10_000
"""No request may fail by its deadline here: this is about cost, not about overload."""
BARE_BATCH_SIZES = (1, 2, 4, 8, 16, 32)
CLIENTS = (1, 8, 32)


def main() -> None:
    """Measure, print the card, and the figures as JSON on the last line."""
    args = _arguments()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise BenchmarkError("needs two cores: one for the server, one for the clients")
    requests = cycle([request_bytes(query, args.top_k, TIMEOUT_MS) for query in read_queries(args.queries)])
    with ExitStack() as stack:
        port = stack.enter_context(_server(args, cores[0]))
        bare = stack.enter_context(_bare(args, cores[0]))
        os.sched_setaffinity(0, {cores[1]})
        advance = stack.enter_context(progress("Measuring", args.rounds, "rounds"))
        rounds = []
        run_load(port, requests, clients=8, seconds=args.seconds)
        for _ in range(args.rounds):
            rounds.append(_round(bare, port, requests, args.seconds))
            advance(1)
    _report(rounds, args)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument(
        "--queries", type=Path, help="query_id<TAB>text with a header line; default: those of the export"
    )
    parser.add_argument("--top-k", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    return parser.parse_args()


@contextmanager
def _server(args: argparse.Namespace, core: int) -> Iterator[int]:
    """The service on one core; yields its port."""
    command = [sys.executable, "hlm.py", "serve", "--name", "bench", "--port", "0"]
    command += ["--encoder", str(args.encoder), "--index", str(args.index)]
    with _pinned(command, core) as server:
        line = server.stdout.readline()
        if "http://" not in line:
            raise BenchmarkError("the server did not start; its error is above")
        yield int(line.split("http://")[1].split(":")[1])


@contextmanager
def _bare(args: argparse.Namespace, core: int) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "benchmarks.bare", "--encoder", str(args.encoder), "--index", str(args.index)]
    command += ["--queries", str(args.queries)] if args.queries else []
    command += ["--top-k", str(args.top_k)]
    with _pinned(command, core) as bare:
        if bare.stdout.readline() != "ready\n":
            raise BenchmarkError("the bare pipeline did not start; its error is above")
        yield bare


@contextmanager
def _pinned(command: list[str], core: int) -> Iterator[Any]:
    process = subprocess.Popen(
        ["taskset", "-c", str(core), *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _round(bare: Any, port: int, requests: Iterator[bytes], seconds: float) -> dict[str, dict[int, Any]]:
    """Each bare batch size and each number of clients once, close together in time."""
    found: dict[str, dict[int, Any]] = {"bare": {}, "served": {}}
    for batch_size in BARE_BATCH_SIZES:
        bare.stdin.write(json.dumps({"batch_size": batch_size, "seconds": seconds}) + "\n")
        bare.stdin.flush()
        found["bare"][batch_size] = json.loads(bare.stdout.readline())
    for clients in CLIENTS:
        load = run_load(port, requests, clients=clients, seconds=seconds)
        if load.failed:
            raise BenchmarkError(f"{load.failed} of {load.answered} requests failed with {clients} clients")
        found["served"][clients] = load
    return found


def _report(rounds: list[dict[str, dict[int, Any]]], args: argparse.Namespace) -> None:
    table = Table(title=f"One core, top_k {args.top_k}, medians of {len(rounds)} rounds (least – most)")
    for heading in ("", "queries/s", "p50 ms", "p99 ms"):
        table.add_column(heading, justify="right" if heading else "left")
    for batch_size in BARE_BATCH_SIZES:
        table.add_row(f"bare loop, batch {batch_size}", *_cells([one["bare"][batch_size] for one in rounds]))
    for clients in CLIENTS:
        loads: list[Load] = [one["served"][clients] for one in rounds]
        table.add_row(f"served, {clients} clients", *_cells([asdict(load) for load in loads]))
    Console().print(table)
    best = [max(bare["queries_per_second"] for bare in one["bare"].values()) for one in rounds]
    ratios = {
        "p50_ratio_c1": [one["served"][1].p50_ms / one["bare"][1]["p50_ms"] for one in rounds],
        "throughput_ratio_c32": [
            one["served"][32].queries_per_second / limit for one, limit in zip(rounds, best, strict=True)
        ],
    }
    print(json.dumps({name: round(median(values), 3) for name, values in ratios.items()}))


def _cells(results: list[dict[str, float]]) -> list[str]:
    cells = []
    for name, digits in (("queries_per_second", 0), ("p50_ms", 2), ("p99_ms", 2)):
        values = [result[name] for result in results]
        cells.append(f"{median(values):,.{digits}f} ({min(values):,.{digits}f} – {max(values):,.{digits}f})")
    return cells


if __name__ == "__main__":
    try:
        main()
    except HlmError as error:
        sys.exit(f"error: {error}")
