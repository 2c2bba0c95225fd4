"""A closed-loop HTTP generator that costs little beside what it measures: httptools on bare sockets under uvloop.

An ordinary client library spends 0.2 to 0.5 ms a request on its own core, a third of what the whole service takes;
with one client, that would be read as the server's latency. One request is in flight a connection; a latency counts
from the write to the last byte of the answer.
"""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from time import perf_counter, process_time
from typing import cast

import httptools
import numpy as np
import orjson
import uvloop


@dataclass(frozen=True, slots=True)
class Load:
    """What a closed-loop run saw."""

    queries_per_second: float
    p50_ms: float
    p99_ms: float
    answered: int
    failed: int
    """Answers other than 200."""
    generator_cpus: float
    """Processor seconds a second that this process burnt."""


class _Client(asyncio.Protocol):
    """One connection that sends the next request as soon as it has an answer, until time is up."""

    def __init__(self, requests: Iterator[bytes], ends: float) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.latencies: list[float] = []
        self.failed = 0
        self._requests = requests
        self._ends = ends

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server closed the connection"))

    def on_message_complete(self) -> None:
        """Called by the parser at the last byte of an answer."""
        now = perf_counter()
        self.latencies.append(now - self._sent)
        self.failed += self._parser.get_status_code() != 200
        if now < self._ends:
            self._send()
        else:
            self.done.set_result(None)
            self._transport.close()

    def _send(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._sent = perf_counter()
        self._transport.write(next(self._requests))


def request_bytes(query: str, top_k: int, timeout_ms: int, headers: Mapping[str, str] | None = None) -> bytes:
    """One `POST /retrieve` as it goes over the wire, with these headers beside the usual ones."""
    return post_bytes({"query": query, "top_k": top_k, "timeout_ms": timeout_ms}, headers)


def post_bytes(asked: Mapping[str, object], headers: Mapping[str, str] | None = None) -> bytes:
    """The same with any body."""
    body = orjson.dumps(asked)
    fields = {"Host": "x", "Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST /retrieve HTTP/1.1\r\n{head}\r\n".encode() + body


def run_load(port: int, requests: Iterator[bytes], *, clients: int, seconds: float, awake: bool = True) -> Load:
    """Keep `clients` requests in flight at 127.0.0.1 for `seconds`.

    Args:
        port: of the server.
        requests: whole HTTP requests, taken one by one.
        clients: connections.
        seconds: how long new requests are sent.
        awake: poll instead of sleeping, which takes all of a core; not where the server may use that core.
    """
    return uvloop.run(_run(port, requests, clients, seconds, awake))


async def _stay_awake() -> None:
    """Keep the loop polling: waking a sleeping core takes 0.1 ms here, which would be read as the server's."""
    while True:  # noqa: ASYNC110 - to poll is the point
        await asyncio.sleep(0)


async def _run(port: int, requests: Iterator[bytes], clients: int, seconds: float, awake: bool) -> Load:
    loop = asyncio.get_running_loop()
    polling = asyncio.create_task(_stay_awake()) if awake else None
    started, cpu_started = perf_counter(), process_time()
    connections = [
        (await loop.create_connection(lambda: _Client(requests, started + seconds), "127.0.0.1", port))[1]
        for _ in range(clients)
    ]
    await asyncio.gather(*(connection.done for connection in connections))
    elapsed, cpu_s = perf_counter() - started, process_time() - cpu_started
    if polling is not None:
        polling.cancel()
    latencies = np.concatenate([connection.latencies for connection in connections])
    p50, p99 = np.percentile(latencies, [50, 99]) * 1e3
    failed = sum(connection.failed for connection in connections)
    return Load((len(latencies) - failed) / elapsed, p50, p99, len(latencies), failed, cpu_s / elapsed)
