"""A real server at 2, 5 and 10 times what it can do, what becomes of it then, and how soon it is itself again.

How: the server has one core and its embedding cache is off, so that every answer was encoded; the queries are real ones
in turn. The open-loop generator (`benchmarks/open_loop.py`) has another core. Capacity is the throughput of 64
closed-loop clients whose time budget nothing can exceed. Then, with Poisson arrivals and `timeout_ms` in every request:
2 and 5 times capacity, half of it, 10 times and half of it again without a pause, and 2 times with 30 % of the clients
closing their connection 1 ms after they asked. A client never gives up otherwise: an answer that comes too late counts
as late.

How to read it:
- goodput: answers 200 a second within the deadline as the client sees it, from the moment the request was due, over
  the capacity that was measured right before.
- late: the largest share, over the three overloads, of answers 200 that came after the deadline.
- recovery_s: from the end of the 10-fold overload to the first 0.25 s whose arrivals were all answered 200 with a p99
  of at most 1.5 times that before the overloads; null if that never came.
- rss_growth: resident memory of the server after everything over that before the overloads.
- disconnected_encode_share: of the queries that were encoded while clients disconnected (sum of `hlm_batch_size`), the
  share that no client got as an answer 200. It includes those whose deadline passed while they were encoded, so what
  the disconnected cost is at most this.
The generator is the limit where its p99 lateness is a good part of the deadline or its busy share near 1.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle

import numpy as np
import orjson
from rich.table import Table

from artifacts.errors import HlmError
from benchmarks.http_load import request_bytes, run_load
from benchmarks.open_load import OpenLoad
from benchmarks.open_loop import arrival_times, run_open_loop, run_schedule
from benchmarks.queries import read_queries
from benchmarks.servers import CACHE_OFF, Server, add_arguments, serving, two_cores
from benchmarks.tables import wide_console

CAPACITY_CLIENTS = 64
CAPACITY_TIMEOUT_MS = 10_000
OVERLOADS = (2, 5, 10)
USUAL_LOAD = 0.5
DISCONNECT_SHARE = 0.3
CONNECTIONS = 4_096
"""More than ever wait at once, so that no arrival waits for one."""
WATCHED_S = 3.0
"""How long the recovery is watched at least; it is to take 2 s."""
WINDOW_S = 0.25
STEP_S = 0.05
TOLERANCE = 1.5
HEADINGS = (
    *("", "capacity/s", "offered/s", "answered/s", "goodput", "503", "504", "degraded", "late"),
    *("p99 of 200, ms", "generator"),
)


@dataclass(frozen=True, slots=True)
class Phase:
    """One open-loop run, and the capacity that was measured right before it: a shared machine changes its speed."""

    load: OpenLoad
    capacity_qps: float

    def goodput(self, deadline_s: float) -> float:
        """Over capacity."""
        return self.load.goodput_qps(deadline_s) / self.capacity_qps


@dataclass(frozen=True, slots=True)
class Findings:
    """What all phases gave."""

    usual: Phase
    overloads: dict[int, Phase]
    recovering: Phase
    disconnecting: Phase
    disconnected_encode_share: float
    rss_growth: float


def recovery_s(load: OpenLoad, usual_p99_ms: float) -> float | None:
    """Seconds until the first window that is as usual: all answered 200, p99 within `TOLERANCE` of `usual_p99_ms`."""
    for start in np.arange(0, load.seconds - WINDOW_S, STEP_S):
        window = load.between(start, start + WINDOW_S)
        if window.share(200) == 1 and window.latency_ms(99) <= TOLERANCE * usual_p99_ms:
            return float(start)
    return None


def degraded_share(load: OpenLoad) -> float:
    """Share of the arrivals that were answered 200 with less effort than usual, as their coverage says."""
    answers = [body for status, body in zip(load.status, load.bodies, strict=True) if status == 200]
    degraded = sum(_is_degraded(orjson.loads(body)["coverage"]) for body in answers)
    return degraded / len(load.status) if len(load.status) else 0.0


def _is_degraded(coverage: dict[str, object]) -> bool:
    return coverage["reason"] == "degraded" or bool(coverage.get("degraded"))


class Tester:
    """Sends the phases, one after the other, to one server."""

    def __init__(self, server: Server, args: argparse.Namespace) -> None:
        queries = read_queries(args.queries)
        self._server = server
        self._seconds: float = args.seconds
        self._seed: int = args.seed
        self._patient = cycle([request_bytes(query, args.top_k, CAPACITY_TIMEOUT_MS) for query in queries])
        self._requests = cycle([request_bytes(query, args.top_k, args.timeout_ms) for query in queries])

    def run(self) -> Findings:
        """All phases."""
        self._closed_loop_qps()  # the first may be slower
        rss_before = self._server.rss_bytes()
        overloads = {times: self._phase(times) for times in OVERLOADS[:-1]}
        usual = self._phase(USUAL_LOAD)
        overloads[OVERLOADS[-1]], recovering = self._overload_and_recovery(usual.capacity_qps)
        disconnecting, encode_share = self._disconnecting(self._closed_loop_qps())
        rss_growth = self._server.rss_bytes() / rss_before
        return Findings(usual, overloads, recovering, disconnecting, encode_share, rss_growth)

    def _closed_loop_qps(self) -> float:
        load = run_load(self._server.port, self._patient, clients=CAPACITY_CLIENTS, seconds=self._seconds)
        return load.queries_per_second

    def _phase(self, times: float) -> Phase:
        capacity = self._closed_loop_qps()
        return Phase(self._poisson(times * capacity), capacity)

    def _poisson(self, rate: float, disconnect_share: float = 0.0) -> OpenLoad:
        self._seed += 1
        return run_open_loop(
            self._server.port,
            self._requests,
            rate=rate,
            seconds=self._seconds,
            seed=self._seed,
            connections=CONNECTIONS,
            disconnect_share=disconnect_share,
            keep_bodies=True,
        )

    def _overload_and_recovery(self, capacity_qps: float) -> tuple[Phase, Phase]:
        """One run, since waiting for the last answers of the overload would hide a part of the recovery."""
        watched_s = max(WATCHED_S, self._seconds)
        overload = arrival_times(OVERLOADS[-1] * capacity_qps, self._seconds, self._seed + 1)
        after = arrival_times(USUAL_LOAD * capacity_qps, watched_s, self._seed + 2)
        intended = np.concatenate([overload, self._seconds + after])
        both = run_schedule(
            self._server.port,
            self._requests,
            intended,
            np.zeros(len(intended), np.bool_),
            seconds=self._seconds + watched_s,
            connections=CONNECTIONS,
            keep_bodies=True,
        )
        return (
            Phase(both.between(0, self._seconds), capacity_qps),
            Phase(both.between(self._seconds, self._seconds + watched_s), capacity_qps),
        )

    def _disconnecting(self, capacity_qps: float) -> tuple[Phase, float]:
        before = self._server.metrics()["hlm_batch_size_sum"]
        load = self._poisson(2 * capacity_qps, DISCONNECT_SHARE)
        encoded = self._server.metrics()["hlm_batch_size_sum"] - before
        return Phase(load, capacity_qps), unanswered_share(encoded, int(np.sum(load.status == 200)))


def unanswered_share(encoded: float, answered: int) -> float:
    """Share of the encoded queries that no client got an answer for."""
    return max(0.0, 1 - answered / encoded) if encoded else 0.0


def main() -> None:
    """Measure, print the card, and the figures as JSON on the last line."""
    args = _arguments()
    server_core, client_core = two_cores()
    with serving(args, {server_core}, CACHE_OFF) as server:
        os.sched_setaffinity(0, {client_core})
        findings = Tester(server, args).run()
    _report(findings, args.timeout_ms)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--timeout-ms", type=int, default=50, help="time budget of every request")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each phase")
    parser.add_argument("--seed", type=int, default=0, help="of the arrivals")
    return parser.parse_args()


def _report(findings: Findings, timeout_ms: int) -> None:
    table = Table(title=f"One core, Poisson arrivals, timeout {timeout_ms} ms")
    for heading in HEADINGS:
        table.add_column(heading, justify="right" if heading else "left")
    for name, phase in _phases(findings):
        table.add_row(name, *_cells(phase, timeout_ms / 1e3))
    console = wide_console()
    console.print(table)
    console.print(
        "503, 504 and degraded are shares of the arrivals, goodput of capacity, late of the answers 200.\n"
        "Generator: p99 of how late it sent, and share of the time in which it was busy."
    )
    print(json.dumps(summary(findings, timeout_ms / 1e3)))


def summary(findings: Findings, deadline_s: float) -> dict[str, object]:
    """The last line."""
    overloads = findings.overloads
    recovered_s = recovery_s(findings.recovering.load, findings.usual.load.latency_ms(99))
    return {
        "goodput": {str(times): round(phase.goodput(deadline_s), 3) for times, phase in overloads.items()},
        "late": round(max(phase.load.late_share(deadline_s) for phase in overloads.values()), 4),
        "recovery_s": None if recovered_s is None else round(recovered_s, 2),
        "rss_growth": round(findings.rss_growth, 3),
        "disconnected_encode_share": round(findings.disconnected_encode_share, 3),
    }


def _phases(findings: Findings) -> Iterator[tuple[str, Phase]]:
    """In the order of time."""
    *first, last = findings.overloads.items()
    for times, phase in first:
        yield f"{times} ×", phase
    yield f"{USUAL_LOAD:g} ×, before", findings.usual
    yield f"{last[0]} ×", last[1]
    yield f"{USUAL_LOAD:g} ×, right after", findings.recovering
    yield f"2 ×, {DISCONNECT_SHARE:.0%} disconnect", findings.disconnecting


def _cells(phase: Phase, deadline_s: float) -> list[str]:
    load = phase.load
    return [
        f"{phase.capacity_qps:,.0f}",
        f"{load.offered_qps:,.0f}",
        f"{load.achieved_qps:,.0f}",
        f"{phase.goodput(deadline_s):.2f}",
        f"{load.share(503):.1%}",
        f"{load.share(504):.1%}",
        f"{degraded_share(load):.1%}",
        f"{load.late_share(deadline_s):.1%}",
        f"{load.latency_ms(99):.1f}",
        f"{load.lateness_ms(99):.1f} ms, {load.busy_share:.0%}",
    ]


if __name__ == "__main__":
    try:
        main()
    except HlmError as error:
        sys.exit(f"error: {error}")
