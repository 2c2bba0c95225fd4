"""Load from a process of its own, so that what the measuring program does meanwhile delays no request."""

import multiprocessing
import os
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from time import perf_counter

from benchmarks.http_load import Load, run_load
from benchmarks.open_load import OpenLoad
from benchmarks.open_loop import run_open_loop


@dataclass(frozen=True, slots=True)
class TimedLoad:
    """An open-loop run and when it began."""

    started_s: float
    """By `perf_counter`, which all processes of a machine share; the load's own times count from here."""
    load: OpenLoad


class LoadProcess:
    """Sends load to 127.0.0.1 from another process, the same requests in turn."""

    def __init__(self, pool: ProcessPoolExecutor, requests: Sequence[bytes]) -> None:
        self._pool = pool
        self._requests = list(requests)

    def begin(
        self, port: int, *, rate: float, seconds: float, seed: int, keep_bodies: bool = False, awake: bool = False
    ) -> "Future[TimedLoad]":
        """Begin an open-loop run; its result comes after the last answer. Arguments as of `run_open_loop`."""
        return self._pool.submit(_open_loop, port, self._requests, rate, seconds, seed, keep_bodies, awake)

    def closed_loop(self, port: int, *, clients: int, seconds: float) -> Load:
        """Keep `clients` requests in flight for `seconds`."""
        return self._pool.submit(_closed_loop, port, self._requests, clients, seconds).result()


@contextmanager
def load_process(requests: Sequence[bytes], cores: Collection[int]) -> Iterator[LoadProcess]:
    """A process on these cores that sends `requests` over and over."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, os.sched_setaffinity, (0, cores)) as pool:
        yield LoadProcess(pool, requests)


CONNECTIONS = 256
"""More than any of these checks has in flight, so that no request waits for a connection."""


def _open_loop(
    port: int, requests: list[bytes], rate: float, seconds: float, seed: int, keep_bodies: bool, awake: bool
) -> TimedLoad:
    started_s = perf_counter()
    load = run_open_loop(
        port,
        cycle(requests),
        rate=rate,
        seconds=seconds,
        seed=seed,
        connections=CONNECTIONS,
        keep_bodies=keep_bodies,
        awake=awake,
    )
    return TimedLoad(started_s, load)


def _closed_loop(port: int, requests: list[bytes], clients: int, seconds: float) -> Load:
    return run_load(port, cycle(requests), clients=clients, seconds=seconds)
