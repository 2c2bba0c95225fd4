"""Front processes before one engine, against a single process: on the same two cores, and where each comes to its end.

What it measures: `/retrieve` of the service as one process, and with one front process (docs/decisions/0010).
How: both on both cores, with the generator beside them, so that neither is given more; the order alternates from round
to round, and ratios are taken within a round. The embedding cache is off. Then with results cached and queries that
repeat, so that nothing is encoded or searched: the processor time that a request takes of each process, by the
kernel's count. What is left then is what one interpreter does by itself, one core at a time.
How to read the last line:
- throughput_ratio, p50_ratio_c1: with a front process over without, at 64 clients and at one. At least 0.9 of the
  throughput was aimed at.
- single_us: of the single process a request; one process answers no more than a million by that a second.
- engine_us, front_us: the same of engine and front process. Their quotient is how many front processes keep an engine
  busy on a machine of many cores.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from statistics import median

from rich.table import Table

from artifacts.errors import HlmError
from benchmarks.http_load import Load, request_bytes, run_load
from benchmarks.queries import read_queries
from benchmarks.servers import CACHE_OFF, Server, add_arguments, serving, two_cores
from benchmarks.tables import wide_console
from terminal import progress

TIMEOUT_MS = 10_000
CLIENTS = (1, 64)
FRONT = {"HLM_SERVER__FRONT_PROCESSES": "1"}
RESULTS_CACHED = {"HLM_CACHE__RESULT_TTL_MS": "1000"}
REPEATED = 20
"""Queries that are asked again and again, so that all but the first of a second are cached."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Processor time of a request, in µs."""

    engine_us: float
    """Of the process that was started."""
    fronts_us: float
    """Of those that it started."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One kind of service in one round."""

    loads: dict[int, Load]
    """By closed-loop clients."""
    cost: Cost


class Kind:
    """The service with or without front processes, twice: as it answers new queries, and as it answers cached ones."""

    def __init__(self, stack: ExitStack, args: argparse.Namespace, settings: Mapping[str, str]) -> None:
        cores = set(two_cores())
        self._new = stack.enter_context(serving(args, cores, {**CACHE_OFF, **settings}))
        self._cached = stack.enter_context(serving(args, cores, {**RESULTS_CACHED, **settings}))
        queries = read_queries(args.queries)
        self._requests = cycle([request_bytes(query, args.top_k, TIMEOUT_MS) for query in queries])
        self._repeated = cycle([request_bytes(query, args.top_k, TIMEOUT_MS) for query in queries[:REPEATED]])
        self._seconds: float = args.seconds

    def look(self) -> Seen:
        """Everything once."""
        loads = {clients: self._load(self._new, clients) for clients in CLIENTS}
        before = _cpu_s(self._cached)
        answered = run_load(
            self._cached.port, self._repeated, clients=max(CLIENTS), seconds=self._seconds, awake=False
        ).answered
        spent = [(after - start) / answered * 1e6 for after, start in zip(_cpu_s(self._cached), before, strict=True)]
        return Seen(loads, Cost(*spent))

    def _load(self, server: Server, clients: int) -> Load:
        return run_load(server.port, self._requests, clients=clients, seconds=self._seconds, awake=False)


def _cpu_s(server: Server) -> tuple[float, float]:
    """Of the process that was started, and of those that it started."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    return _cpu_s_of(server.pid), sum(_cpu_s_of(int(child)) for child in children)


def _cpu_s_of(pid: int) -> float:
    """User and system time; proc_pid_stat(5) has them behind the name, which may contain anything but that bracket."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def figures(single: Seen, split: Seen) -> dict[str, float]:
    """The last line, for one round."""
    busy = max(CLIENTS)
    return {
        "throughput_ratio": split.loads[busy].queries_per_second / single.loads[busy].queries_per_second,
        "p50_ratio_c1": split.loads[1].p50_ms / single.loads[1].p50_ms,
        "single_us": single.cost.engine_us,
        "engine_us": split.cost.engine_us,
        "front_us": split.cost.fronts_us,
    }


def main() -> None:
    """Measure, print the card, and the figures as JSON on the last line."""
    args = _arguments()
    rounds: list[tuple[Seen, Seen]] = []
    with ExitStack() as stack:
        single, split = (Kind(stack, args, settings) for settings in ({}, FRONT))
        advance = stack.enter_context(progress("Measuring", args.rounds, "rounds"))
        for number in range(args.rounds):
            if number % 2:
                of_split, of_single = split.look(), single.look()
            else:
                of_single, of_split = single.look(), split.look()
            rounds.append((of_single, of_split))
            advance(1)
    _print_table(rounds)
    found = [figures(*one) for one in rounds]
    print(json.dumps({name: round(median(one[name] for one in found), 3) for name in found[0]}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    return parser.parse_args()


def _print_table(rounds: list[tuple[Seen, Seen]]) -> None:
    table = Table(title=f"Two of {os.cpu_count()} cores, medians of {len(rounds)} rounds (least – most)")
    for heading in ("", "queries/s", "p50 ms", "p99 ms", "cached: µs of the engine", "of the front"):
        table.add_column(heading, justify="right" if heading else "left")
    for place, name in enumerate(("one process", "one front process and the engine")):
        seen = [one[place] for one in rounds]
        for clients in CLIENTS:
            loads = [one.loads[clients] for one in seen]
            cells = [
                _cell([getattr(load, figure) for load in loads])
                for figure in ("queries_per_second", "p50_ms", "p99_ms")
            ]
            costs = [_cell([one.cost.engine_us for one in seen]), _cell([one.cost.fronts_us for one in seen])]
            table.add_row(f"{name}, {clients} clients", *cells, *(costs if clients > 1 else ("", "")))
    wide_console().print(table)


def _cell(values: list[float]) -> str:
    return f"{median(values):,.2f} ({min(values):,.2f} – {max(values):,.2f})"


if __name__ == "__main__":
    try:
        main()
    except HlmError as error:
        sys.exit(f"error: {error}")
