"""An open-loop HTTP generator: requests leave when they are due, whether or not earlier ones were answered.

A closed loop waits out a stall of the server and asks nothing meanwhile, so its percentiles miss what callers would
have met then. Here arrivals follow a seeded Poisson process, and a latency counts from the moment at which the request
was due: what waits for a free connection, or for this program, has already begun to wait.

One request is in flight a connection. The connection that was idle last is used first; where none is idle another is
opened, up to a limit, beyond which arrivals wait. httptools on bare sockets under uvloop, as in `http_load`. One core
of a virtual machine sends 8,000 requests a second to a responder of a few lines on the other; the figures and the
command are in docs/experiments.md, "the open-loop generator". A run in which the generator was the limit shows it:
see `OpenLoad.lateness_ms` and `OpenLoad.busy_share`.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterator
from time import perf_counter
from typing import cast

import httptools
import numpy as np
import uvloop
from numpy.typing import NDArray

from benchmarks.open_load import ABANDONED, FAILED, OpenLoad, Seconds

ABANDON_AFTER_S = 0.001
LONGEST_POLL_S = 0.001
"""An idle turn of the loop takes some microseconds; one that takes longer was kept from running."""
LAST_ANSWER_S = 15.0
"""How long after the last arrival answers are waited for: more than the longest `timeout_ms` there is."""


def arrival_times(rate: float, seconds: float, seed: int) -> Seconds:
    """Poisson arrivals of `rate` a second in [0, `seconds`), rising; the same seed gives the same times."""
    rng = np.random.default_rng(seed)
    enough = int(rate * seconds + 10 * (rate * seconds) ** 0.5 + 10)  # ten standard deviations
    times = np.cumsum(rng.exponential(1 / rate, enough))
    return times[times < seconds]


def run_open_loop(
    port: int,
    requests: Iterator[bytes],
    *,
    rate: float,
    seconds: float,
    seed: int,
    connections: int,
    disconnect_share: float = 0.0,
    keep_bodies: bool = False,
    awake: bool = True,
) -> OpenLoad:
    """Send requests to 127.0.0.1 as they arrive, and wait for their answers.

    Args:
        port: of the server.
        requests: whole HTTP requests; the n-th is that of the n-th arrival.
        rate: mean arrivals a second.
        seconds: how long requests arrive.
        seed: of arrivals and of the choice of those that are abandoned.
        connections: most connections at once; arrivals beyond wait, and their latency goes on counting.
        disconnect_share: share of requests whose connection is closed 1 ms after they were sent, unless answered.
        keep_bodies: whether the answers' bodies are kept.
        awake: poll instead of sleeping; a sleeping core wakes 0.1 ms late and its timers are good to 1 ms, but
            polling takes all of a core.
    """
    intended = arrival_times(rate, seconds, seed)
    abandoned = np.random.default_rng([seed, 1]).random(len(intended)) < disconnect_share
    return run_schedule(
        port,
        requests,
        intended,
        abandoned,
        seconds=seconds,
        connections=connections,
        keep_bodies=keep_bodies,
        awake=awake,
    )


def run_schedule(
    port: int,
    requests: Iterator[bytes],
    intended_s: Seconds,
    abandoned: NDArray[np.bool_],
    *,
    seconds: float,
    connections: int,
    keep_bodies: bool = False,
    awake: bool = True,
) -> OpenLoad:
    """Send requests at given times, as `run_open_loop` does at its own.

    Args:
        port: of the server.
        requests: whole HTTP requests; the n-th is that of the n-th arrival.
        intended_s: seconds from the start, rising.
        abandoned: one an arrival; whether its client gives it up 1 ms after it was sent, unless answered.
        seconds: how long requests arrive, at least the last of `intended_s`.
        connections: as for `run_open_loop`.
        keep_bodies: likewise.
        awake: likewise.
    """
    return uvloop.run(_run(port, requests, seconds, intended_s, abandoned, connections, keep_bodies, awake))


async def _run(
    port: int,
    requests: Iterator[bytes],
    seconds: float,
    intended: Seconds,
    abandoned: NDArray[np.bool_],
    connections: int,
    keep_bodies: bool,
    awake: bool,
) -> OpenLoad:
    generator = _Generator(port, requests, intended.tolist(), abandoned.tolist(), connections, keep_bodies, awake)
    await generator.run(seconds + LAST_ANSWER_S)
    return OpenLoad(
        seconds,
        intended,
        np.array(generator.sent_s),
        np.array(generator.done_s),
        np.array(generator.status, np.int64),
        generator.bodies,
        generator.busy_share,
    )


class _Generator:
    """The arrivals of one run, their connections, and what became of them."""

    def __init__(
        self,
        port: int,
        requests: Iterator[bytes],
        intended: list[float],
        abandoned: list[bool],
        connections: int,
        keep_bodies: bool,
        awake: bool,
    ) -> None:
        count = len(intended)
        self.loop = asyncio.get_running_loop()
        self.sent_s = [float("nan")] * count
        self.done_s = [float("nan")] * count
        self.status = [FAILED] * count
        self.bodies = [b""] * count if keep_bodies else []
        self.abandoned = abandoned
        self.keep_bodies = keep_bodies
        self.connections: set[_Connection] = set()
        self._port = port
        self._requests = requests
        self._intended = intended
        self._free_slots = connections
        self._events = 0
        self._idle_s = 0.0
        self._awake = awake
        self._next = 0
        self._left = count
        self._idle: list[_Connection] = []
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self._finished = asyncio.Event()

    def now(self) -> float:
        """Seconds since the start."""
        return perf_counter() - self._started

    async def run(self, limit_s: float) -> None:
        """Send everything; returns after the last answer or `limit_s`."""
        self._started = perf_counter()
        self._looked_at_s, self._seen_events = 0.0, 0
        if not self._left:
            return
        self._tick()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._finished.wait()
        self._waiting.clear()
        for task in self._opening:
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        left = list(self.connections)
        for connection in left:
            connection.transport.abort()
        await asyncio.gather(*(connection.closed for connection in left))

    def _tick(self) -> None:
        now = self.now()
        if self._events == self._seen_events and now - self._looked_at_s < LONGEST_POLL_S:
            self._idle_s += now - self._looked_at_s
        self._looked_at_s, self._seen_events = now, self._events
        while self._next < len(self._intended) and self._intended[self._next] <= now:
            self._arrive()
        if self._finished.is_set():
            return
        if self._awake:
            self.loop.call_soon(self._tick)
        elif self._next < len(self._intended):
            self.loop.call_later(self._intended[self._next] - now, self._tick)

    @property
    def busy_share(self) -> float:
        """Share of the time until the last tick in which it was not idly polling."""
        return 1 - self._idle_s / self._looked_at_s if self._looked_at_s else 0.0

    def _arrive(self) -> None:
        self._events += 1
        index, request = self._next, next(self._requests)
        self._next += 1
        if self._idle:
            self._idle.pop().send(index, request)
        else:
            self._waiting.append((index, request))
            self._open_for_waiting()

    def _open_for_waiting(self) -> None:
        if self._waiting and self._free_slots:
            self._free_slots -= 1
            task = self.loop.create_task(self._open(*self._waiting.popleft()))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self, index: int, request: bytes) -> None:
        try:
            _, connection = await self.loop.create_connection(lambda: _Connection(self), "127.0.0.1", self._port)
        except OSError:
            self._free_slots += 1
            self._end(index, FAILED)
            self._open_for_waiting()
        else:
            connection.send(index, request)

    def answered(self, connection: "_Connection", index: int, status: int, body: bytes, reusable: bool) -> None:
        """An answer is complete."""
        self.done_s[index] = self.now()
        if self.keep_bodies:
            self.bodies[index] = body
        self._end(index, status)
        if not reusable:
            connection.transport.close()
        elif self._waiting:
            connection.send(*self._waiting.popleft())
        else:
            self._idle.append(connection)

    def lost(self, connection: "_Connection", index: int | None, status: int) -> None:
        """A connection is gone, with the request `index` or without one."""
        self._free_slots += 1
        self.connections.discard(connection)
        if index is not None:
            self._end(index, status)
        elif connection in self._idle:
            self._idle.remove(connection)
        self._open_for_waiting()

    def _end(self, index: int, status: int) -> None:
        self._events += 1
        self.status[index] = status
        self._left -= 1
        if not self._left and self._next == len(self._intended):
            self._finished.set()


class _Connection(asyncio.Protocol):
    """One connection; the parser calls its `on_…` methods."""

    def __init__(self, generator: _Generator) -> None:
        self._generator = generator
        self.closed: asyncio.Future[None] = generator.loop.create_future()
        self._index: int | None = None
        self._loss_status = FAILED
        self._body: list[bytes] = []
        self._parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._generator.connections.add(self)

    def send(self, index: int, request: bytes) -> None:
        """Send one request; no other is in flight."""
        generator = self._generator
        self._index = index
        generator.sent_s[index] = generator.now()
        self.transport.write(request)
        if generator.abandoned[index]:
            generator.loop.call_later(ABANDON_AFTER_S, self._abandon, index)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.abort()

    def on_body(self, part: bytes) -> None:
        if self._generator.keep_bodies:
            self._body.append(part)

    def on_message_complete(self) -> None:
        if self._index is None:  # an answer to nothing: the connection cannot be trusted
            self.transport.abort()
            return
        index, self._index = self._index, None
        body = b"".join(self._body)
        self._body.clear()
        self._generator.answered(self, index, self._parser.get_status_code(), body, self._parser.should_keep_alive())

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the signature is asyncio's
        index, self._index = self._index, None
        self._generator.lost(self, index, self._loss_status)
        self.closed.set_result(None)

    def _abandon(self, index: int) -> None:
        if self._index == index:
            self._loss_status = ABANDONED
            self.transport.close()
