"""This service beside what a user would pick instead: query text → 100 ad ids, same ONNX file, tokenizer and graph.

How: first each server has one core and the generators (`benchmarks/http_load.py`, `open_loop.py`) another; then each
has both, and one generator shares these with it, asleep while it has nothing to do. Servers take turns within a round,
one runs at a time, and figures are medians over rounds. The service's embedding cache is off, but in the entry that
says otherwise. FastAPI + sentence-transformers runs the checkpoint itself (fp32), since that is what it does.
What was measured is kept in `--results`; a comparison that was interrupted goes on from there.

How to read it:
- bare_: the same work in a loop without a server (`benchmarks/bare.py`), on the server's core just before this service.
- qps_N: answers a second with N closed-loop clients; p50_ms_1 with one.
- capacity: the highest Poisson rate whose p99, from when a request was due, is within 25 ms, by bisection.
- p50/p99_ms_50, _80: at 50 % and 80 % of each server's own capacity; p99_ms_rival: at half that of the best other.
- goodput_N: at N times the best throughput, answers a second within 100 ms of when they were due. The service is told
  the deadline with each request; others are started anew with that timeout, and with as many places as they can
  answer in half of it, where they have such settings.
- skewed_qps_N: with queries that recur as in a search log (`benchmarks/skew.py`).
- idle_cpu: cores used with nothing to do. rss_mib: after all that. ready_s: from start to the first answer.
- poison, disconnects, sigterm: see `behaviour.py`.
"""

import argparse
import json
import os
import sys
from itertools import islice
from math import isfinite
from pathlib import Path

from rich.markdown import Markdown

from artifacts.errors import HlmError
from benchmarks.errors import BenchmarkError
from benchmarks.peers.behaviour import behaviour
from benchmarks.peers.measure import DEADLINE_MS, PATIENT_MS, Figures, Measurement, Questions, throughput
from benchmarks.peers.peers import OURS, SHORT, Peer, peers, service
from benchmarks.peers.report import BOTH_CORES, ONE_CORE, best_other, render, summary
from benchmarks.peers.results import Results, Run
from benchmarks.peers.running import Limits, Seat, running
from benchmarks.queries import read_queries
from benchmarks.servers import add_arguments, bare_pipeline, two_cores
from benchmarks.skew import Replay, fit_law
from benchmarks.tables import wide_console
from export.source import DEMO, resolve
from loadtest.result import machine, now
from terminal import progress

SKEWED = 200_000
"""Queries of the replay; more than any server answers meanwhile."""
PLACES = 1_000
"""Of a server that is not overloaded: no limit."""
FIRST_PORT = 18_400
BARE_BATCH_SIZES = (1, 4, 8)


class Comparison:
    """Measures one server after the other."""

    def __init__(self, args: argparse.Namespace, results: Results) -> None:
        queries = read_queries(args.queries)
        skewed = Replay(read_queries(args.skewed_queries or args.queries), fit_law(), seed=0).stream()
        self._questions = Questions(queries, list(islice(skewed, SKEWED)), args.top_k, args.seconds)
        files = {"encoder": args.encoder, "index": args.index, "checkpoint": resolve(DEMO).directory}
        self._args = args
        self._variables = {f"PEER_{name.upper()}": str(path) for name, path in files.items()}
        self._results = results
        self._port = FIRST_PORT

    def add(self, peer: Peer, seat: Seat, number: int) -> None:
        """Measure a server once more, unless that was done."""
        if self._results.find(peer.name, seat.name, number):
            return
        os.sched_setaffinity(0, seat.generator_cores)
        try:
            figures, checks = self._measure(peer, seat, number)
        except ConnectionError as error:
            raise BenchmarkError(f"{peer.name}: closed connections of closed-loop clients: {error}") from error
        run = Run(
            peer=peer.name,
            version=peer.version(),
            settings=peer.settings,
            seat=seat.name,
            round=number,
            seconds=self._questions.seconds,
            machine=machine(),
            measured_at=now(),
            figures={name: value for name, value in figures.items() if isfinite(value)},
            checks=checks,
        )
        self._results.add(run)

    def _measure(self, peer: Peer, seat: Seat, number: int) -> tuple[Figures, dict[str, bool]]:
        limit = self._bare(seat) if peer.name == OURS and not seat.shared else {}
        with running(peer, self._next_port(), seat, self._variables, Limits(PATIENT_MS, PLACES)) as server:
            load = Measurement(server, seat, self._questions, seed=100 * number)
            if peer.cached:
                return load.skewed(), {}
            if seat.shared:
                return load.usual(), {}
            figures = limit | {"ready_s": server.ready_s, "idle_cpu": load.idle()} | load.usual() | load.skewed()
            rival = best_other(self._results.of_round(seat.name, number))
            if peer.name == OURS and rival:
                figures |= load.at(rival["capacity"] / 2, "_rival")
            figures["rss_mib"] = server.rss_mib()
            checks = behaviour(server, load, self._questions, throughput(figures))
        limits = Limits(DEADLINE_MS, max(1, round(throughput(figures) * DEADLINE_MS / 2e3)))
        with running(peer, self._next_port(), seat, self._variables, limits) as server:
            urgent = Measurement(server, seat, self._questions, seed=100 * number)
            return figures | urgent.overload(throughput(figures)), checks

    def _bare(self, seat: Seat) -> Figures:
        """What no server on these files passes by much: their work in a loop."""
        with bare_pipeline(self._args, min(seat.server_cores)) as bare:
            loads = []
            for batch_size in BARE_BATCH_SIZES:
                bare.start(batch_size, self._questions.seconds)
                loads.append(bare.result())
        return {"bare_p50_ms_1": loads[0].p50_ms, "bare_qps": max(load.queries_per_second for load in loads)}

    def _next_port(self) -> int:
        self._port += 1
        return self._port


def main() -> None:
    """Measure, print the tables, and the figures as JSON on the last line."""
    args = _arguments()
    results = Results(args.results, args.seconds, machine())
    server_core, client_core = two_cores()
    both = frozenset({server_core, client_core})
    one_core = Seat(ONE_CORE, frozenset({server_core}), frozenset({client_core}))
    chosen = peers(args.encoder, args.index, args.environments)
    turns = [(peer, seat) for seat in (one_core, Seat(BOTH_CORES, both, both)) for peer in chosen]
    if args.short_encoder:
        settings = "defaults, 3 layers of 6, embedding cache on"
        turns.append((service(SHORT, settings, args.short_encoder, args.index, cached=True), one_core))
    turns = [(peer, seat) for peer, seat in turns if args.peers is None or peer.name in args.peers]
    comparison = Comparison(args, results)
    with progress("Comparing", args.rounds * len(turns), "runs", rate=False) as advance:
        for number in range(args.rounds):
            for peer, seat in turns:
                comparison.add(peer, seat, number)
                advance(1, peer.name)
    wide_console().print(Markdown(render(results.runs)))
    print(json.dumps(summary(results.runs)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--skewed-queries", type=Path, help="many distinct ones, as --queries; default: those in pairs")
    parser.add_argument("--short-encoder", type=Path, help="of fewer layers, to be served with the cache")
    parser.add_argument("--environments", type=Path, default=Path("var/peers"), help="where `make peers` put them")
    parser.add_argument("--results", type=Path, help="file to go on with; default: nothing is kept")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.5, help="of each measurement")
    parser.add_argument("--peers", nargs="+", metavar="NAME", help="servers to measure; default: all")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except HlmError as error:
        sys.exit(f"error: {error}")
