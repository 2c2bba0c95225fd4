"""How much the generators can send, and how late: against the least that can answer HTTP, on the other core.

The open loop at several rates: what was offered and answered, how late requests were sent and when answers were in,
both from the moment at which a request was due, the share of the time in which it was busy, and the processor time of a
request in a generator that sleeps instead of polling, which neighbours on the same core do not change. The closed loop
at several numbers of clients. Latencies include those of the responder. Needs nothing but two cores:

    python -m benchmarks.generator_limit
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import repeat
from time import process_time
from typing import cast

import httptools
import uvloop
from rich.table import Table

from benchmarks.http_load import request_bytes, run_load
from benchmarks.open_load import OpenLoad
from benchmarks.open_loop import run_open_loop
from benchmarks.servers import two_cores
from benchmarks.tables import wide_console

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
REQUEST = request_bytes("cordless drill 18v", 100, 50)
RATES = (1_000, 2_000, 4_000, 8_000, 16_000)
CLIENTS = (1, 8, 64)
CONNECTIONS = 1_024
RESPOND = "respond"


class _Responder(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Called by the parser at the end of a request."""
        self._transport.write(ANSWER)


async def _respond() -> None:
    server = await asyncio.get_running_loop().create_server(_Responder, "127.0.0.1", 0, backlog=2_048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def _responder(core: int) -> Iterator[int]:
    """Yields its port."""
    command = ["taskset", "-c", str(core), sys.executable, "-m", "benchmarks.generator_limit", RESPOND]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


def main() -> None:
    """Measure, print the tables, and the figures as JSON on the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    seconds: float = parser.parse_args().seconds
    responder_core, own_core = two_cores()
    with _responder(responder_core) as port:
        os.sched_setaffinity(0, {own_core})
        run_load(port, repeat(REQUEST), clients=8, seconds=0.5)
        opened = [_open_figures(port, rate, seconds) for rate in RATES]
        closed = [_closed_figures(port, clients, seconds) for clients in CLIENTS]
    for title, rows in (("Open loop", opened), ("Closed loop", closed)):
        table = Table(title=title)
        for name in rows[0]:
            table.add_column(name.replace("_", " "), justify="right")
        for row in rows:
            table.add_row(*(f"{value:,g}" for value in row.values()))
        wide_console().print(table)
    print(json.dumps({"open": opened, "closed": closed}))


def _open_figures(port: int, rate: int, seconds: float) -> dict[str, float]:
    load = _open(port, rate, seconds, awake=True)
    cpu_started = process_time()
    asleep = _open(port, rate, seconds, awake=False)
    cpu_s = process_time() - cpu_started
    figures = {
        "offered_qps": load.offered_qps,
        "achieved_qps": load.achieved_qps,
        "late_p50_ms": load.lateness_ms(50),
        "late_p99_ms": load.lateness_ms(99),
        "latency_p50_ms": load.latency_ms(50),
        "latency_p99_ms": load.latency_ms(99),
        "busy_share": load.busy_share,
        "cpu_us": cpu_s / len(asleep.status) * 1e6,
    }
    return {name: round(value, 3) for name, value in figures.items()}


def _open(port: int, rate: int, seconds: float, *, awake: bool) -> OpenLoad:
    return run_open_loop(
        port, repeat(REQUEST), rate=rate, seconds=seconds, seed=rate, connections=CONNECTIONS, awake=awake
    )


def _closed_figures(port: int, clients: int, seconds: float) -> dict[str, float]:
    load = run_load(port, repeat(REQUEST), clients=clients, seconds=seconds)
    figures = {"clients": clients, "qps": load.queries_per_second, "p50_ms": load.p50_ms, "p99_ms": load.p99_ms}
    return {name: round(value, 3) for name, value in figures.items()}


if __name__ == "__main__":
    if sys.argv[1:] == [RESPOND]:
        uvloop.run(_respond())
    else:
        main()
