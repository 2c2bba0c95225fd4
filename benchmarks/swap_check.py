"""A server under load while its releases change, and the account of every answer."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import count

from benchmarks.errors import BenchmarkError
from benchmarks.load_process import LoadProcess, TimedLoad
from benchmarks.open_load import OpenLoad
from benchmarks.stretches import Stretches
from benchmarks.swap_answers import KnownRelease, count_mixed
from benchmarks.swap_plan import Step
from benchmarks.swap_server import SwapServer

LEAD_S = 0.5
"""How long load runs before anything happens."""
CAPACITY_CLIENTS = 16
GRACE_MS = 2_000
"""server.drain_grace_ms"""


@dataclass(slots=True)
class Check:
    """The server, its load, and what became of all requests."""

    server: SwapServer
    load: LoadProcess
    seconds: float
    """Of a stretch."""
    rate: float = 0.0
    known: dict[str, KnownRelease] = field(default_factory=dict)
    mixed: int = 0
    quiet: Stretches = field(default_factory=Stretches)
    swapping: Stretches = field(default_factory=Stretches)
    refusing: Stretches = field(default_factory=Stretches)
    ending: Stretches = field(default_factory=Stretches)
    _seeds: Iterator[int] = field(default_factory=count)

    def during(self, action: Callable[[], None]) -> list[OpenLoad]:
        """Load around an action, until it is done."""
        with ThreadPoolExecutor(1) as pool:
            running = self._begin(self.seconds)
            time.sleep(LEAD_S)
            doing = pool.submit(action)
            loads = [self._checked(running.result().load)]
            while not doing.done():
                loads.append(self.run())
            doing.result()
        return loads

    def run(self, seconds: float | None = None) -> OpenLoad:
        """Load and nothing else."""
        return self._checked(self._begin(seconds or self.seconds).result().load)

    def measure_rate(self, share: float) -> None:
        """Take a share of what the release that is served can do as the rate."""
        self.load.closed_loop(self.server.port, clients=CAPACITY_CLIENTS, seconds=1.0)
        capacity = self.load.closed_loop(self.server.port, clients=CAPACITY_CLIENTS, seconds=3.0)
        self.rate = share * capacity.queries_per_second

    def swap(self, steps: Sequence[Step]) -> None:
        """Swap, in order, and wait until only the last release is loaded."""
        for step in steps:
            self.known[step.release.name] = step.release
            self.server.swap(step)
        self.server.wait_until_alone()

    def end_during_swap(self, release: KnownRelease, after_s: float) -> None:
        """Ask for a release and send SIGTERM; clients leave in the middle of the grace time."""
        self.known[release.name] = release
        running = self._begin(LEAD_S + after_s + 0.5 * GRACE_MS / 1e3)
        time.sleep(LEAD_S)
        self.server.write(self.server.config_of(release))
        time.sleep(after_s)
        self.server.replica.begin_to_stop()
        if exit_code := self.server.replica.wait_until_gone():
            raise BenchmarkError(f"the server ended with exit code {exit_code} after SIGTERM during a swap")
        self.ending.loads.append(self._checked(running.result().load))

    def _begin(self, seconds: float) -> "Future[TimedLoad]":
        return self.load.begin(
            self.server.port, rate=self.rate, seconds=seconds, seed=next(self._seeds), keep_bodies=True
        )

    def _checked(self, load: OpenLoad) -> OpenLoad:
        self.mixed += count_mixed(load.status.tolist(), load.bodies, self.known)
        return replace(load, bodies=[])
