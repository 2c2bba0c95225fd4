"""What one server does with loads of several kinds."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

from benchmarks.http_load import Load, run_load
from benchmarks.open_load import OpenLoad
from benchmarks.open_loop import run_open_loop
from benchmarks.peers.running import Running, Seat

CLIENTS = (1, 8, 32, 64)
BUSY_CLIENTS = (32, 64)
BOUND_MS = 25.0
DEADLINE_MS = 100
PATIENT_MS = 10_000
SHARES = (50, 80)
"""Percent of a server's own capacity."""
OVERLOADS = (2, 5)
STEPS = 6
"""Of the bisection: the capacity is known within 2 %."""
CONNECTIONS = 2_048
WARM_STRETCHES = 24
"""Measurements' worth of time in which a cache fills: its 64 MB hold what 45,000 queries of a log leave."""

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Questions:
    """What servers are asked, and for how long."""

    queries: Sequence[str]
    skewed: Sequence[str]
    """As often as a search log repeats them."""
    top_k: int
    seconds: float
    """Of each measurement."""


class Measurement:
    """Loads for one server.

    Args:
        server: that answers.
        seat: where it and this process are.
        questions: to ask.
        seed: of the arrivals.
    """

    def __init__(self, server: Running, seat: Seat, questions: Questions, seed: int) -> None:
        self._server = server
        self._awake = not seat.shared
        self._questions = questions
        self._seed = seed
        self._requests = self._asking(questions.queries, PATIENT_MS)
        self._urgent = self._asking(questions.queries, DEADLINE_MS)

    def usual(self) -> Figures:
        """Throughput, capacity, and latencies at shares of it."""
        self.closed_loop(8, min(1.0, self._questions.seconds))
        found: Figures = {}
        for clients in CLIENTS:
            load = self.closed_loop(clients)
            found[f"qps_{clients}"] = load.queries_per_second
            if clients == 1:
                found["p50_ms_1"] = load.p50_ms
        found["capacity"] = self._capacity(throughput(found))
        for share in SHARES if found["capacity"] else ():
            found |= self.at(share / 100 * found["capacity"], f"_{share}")
        return found

    def at(self, rate: float, suffix: str) -> Figures:
        """Latencies at Poisson arrivals of a rate."""
        load = self.poisson(rate)
        return {f"p{rank}_ms{suffix}": load.latency_ms(rank) for rank in (50, 99)}

    def idle(self) -> float:
        """Cores used with nothing to do."""
        before_s, started_s = self._server.cpu_s(), time.monotonic()
        time.sleep(self._questions.seconds)
        return (self._server.cpu_s() - before_s) / (time.monotonic() - started_s)

    def skewed(self) -> Figures:
        """Throughput with queries that recur as in a search log."""
        requests = self._asking(self._questions.skewed, PATIENT_MS)
        if self._server.peer.cached:
            self._closed(requests, max(BUSY_CLIENTS), WARM_STRETCHES * self._questions.seconds)
        return {
            f"skewed_qps_{clients}": self._closed(requests, clients, self._questions.seconds).queries_per_second
            for clients in BUSY_CLIENTS
        }

    def overload(self, throughput_qps: float) -> Figures:
        """Answers a second within the deadline at multiples of a throughput."""
        self.poisson(throughput_qps / 2, urgent=True)  # the first may be slower
        return {
            f"goodput_{times}": self.poisson(times * throughput_qps, urgent=True).goodput_qps(DEADLINE_MS / 1e3)
            for times in OVERLOADS
        }

    def closed_loop(self, clients: int, seconds: float | None = None) -> Load:
        """Keep so many requests in flight."""
        return self._closed(self._requests, clients, seconds or self._questions.seconds)

    def poisson(self, rate: float, *, urgent: bool = False, disconnect_share: float = 0.0) -> OpenLoad:
        """Arrivals at a rate."""
        self._seed += 1
        return run_open_loop(
            self._server.port,
            self._urgent if urgent else self._requests,
            rate=rate,
            seconds=self._questions.seconds,
            seed=self._seed,
            connections=CONNECTIONS,
            disconnect_share=disconnect_share,
            awake=self._awake,
        )

    def _closed(self, requests: Iterator[bytes], clients: int, seconds: float) -> Load:
        return run_load(self._server.port, requests, clients=clients, seconds=seconds, awake=self._awake)

    def _capacity(self, most: float) -> float:
        passing, failing = 0.0, most
        for _ in range(STEPS):
            rate = (passing + failing) / 2
            load = self.poisson(rate)
            if load.share(200) == 1 and load.latency_ms(99) <= BOUND_MS:
                passing = rate
            else:
                failing = rate
        return passing

    def _asking(self, queries: Sequence[str], timeout_ms: int) -> Iterator[bytes]:
        request, top_k = self._server.peer.request, self._questions.top_k
        return (request(query, top_k, timeout_ms) for query in cycle(queries))


def throughput(found: Mapping[str, float]) -> float:
    """The best of all numbers of clients."""
    return max(found[f"qps_{clients}"] for clients in CLIENTS)
