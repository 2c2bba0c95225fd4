"""A server whose ads are changed while it answers."""

import http.client
import json
import random
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from benchmarks.errors import BenchmarkError
from benchmarks.replica import Replica, free_port
from benchmarks.servers import CACHE_OFF

MAX_TOP_K = 1_000
FLIPPERS = 8
"""Callers that change the status of ads, each with one change under way. A lone one cannot keep up with 100 a second
where a sync of the disk takes 10 ms now and then: docs/experiments.md, "live updates"."""
WRITERS = 4
"""Callers that write new ads. These are embedded while the core is idle, so on a core that is busy for nine tenths of
the time one takes 70 to 160 ms, and a lone caller falls behind 10 a second."""
MERGED = b'hlm_index_merges_total{result="merged"} '


class LiveServer:
    """`hlm serve --record` with an admin listener."""

    def __init__(self, encoder: Path, index: Path, record: Path, cores: Collection[int]) -> None:
        """Start it, and return when it is ready."""
        self._admin_port = free_port()
        self._token = secrets.token_hex(32)
        environment = {"HLM_ADMIN_TOKEN": self._token, "HLM_SERVER__ADMIN_PORT": str(self._admin_port)}
        options = ["--name", "live", "--encoder", str(encoder), "--index", str(index), "--record", str(record)]
        self.replica = Replica(options, environment | dict(CACHE_OFF), cores)
        self.replica.start()
        self.replica.wait_until_ready()

    @property
    def port(self) -> int:
        """Of the public listener."""
        return self.replica.port

    def admin_connection(self) -> http.client.HTTPConnection:
        """A connection to the admin listener, for one caller."""
        return http.client.HTTPConnection("127.0.0.1", self._admin_port, timeout=60)

    def change(
        self, method: str, path: str, body: bytes = b"", connection: http.client.HTTPConnection | None = None
    ) -> None:
        """Change ads, in a connection of its own or a given one, and return when that is acknowledged.

        Raises:
            BenchmarkError: it was refused.
        """
        if connection is None:
            with closing(self.admin_connection()) as own:
                self.change(method, path, body, own)
            return
        connection.request(method, path, body, {"Authorization": f"Bearer {self._token}"})
        answer = connection.getresponse()
        said = answer.read()
        if answer.status != 200 or json.loads(said)["failed_count"]:
            raise BenchmarkError(f"{method} {path} was answered {answer.status}: {said[:200].decode()}")

    def put(self, ads: Sequence[dict[str, Any]], connection: http.client.HTTPConnection | None = None) -> None:
        """Write ads."""
        self.change("PUT", "/ads", b"\n".join(json.dumps(ad).encode() for ad in ads), connection)

    def set_status(self, ad_id: str, status: str, connection: http.client.HTTPConnection | None = None) -> None:
        """Pause or resume an ad."""
        self.change("PATCH", f"/ads/{ad_id}", json.dumps({"status": status}).encode(), connection)

    def ads(self, query: str, top_k: int = MAX_TOP_K) -> list[str]:
        """Ids of the ads of a query."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("POST", "/retrieve", json.dumps({"query": query, "top_k": top_k, "timeout_ms": 10_000}))
        found = json.loads(connection.getresponse().read())
        connection.close()
        return [ad["ad_id"] for ad in found["ads"]]

    @property
    def merges(self) -> int:
        """How many merges came to their end."""
        [line] = [line for line in self.replica.get("/metrics")[1].splitlines() if line.startswith(MERGED)]
        return int(float(line.removeprefix(MERGED)))


@dataclass(slots=True)
class Made:
    """Changes of one kind, over as many stretches as there were."""

    what: str
    rate: float
    """A second, in all."""
    made: int = 0
    due: float = 0.0

    def check(self, least: float) -> None:
        """Raise where the rate was not kept up.

        Raises:
            BenchmarkError: nothing has been made, or a second's worth less than the share `least` of what was due.
        """
        if not self.made or self.made + self.rate < least * self.due:
            raise BenchmarkError(f"{self.made:,} {self.what} were made where {self.due:,.0f} were due")


@contextmanager
def changes(
    server: LiveServer, ad_ids: Sequence[str], titles: Sequence[str], flips: Made, writes: Made
) -> Iterator[None]:
    """Change the status of ads, and write new ones, at their rates as long as the block runs.

    Raises:
        BenchmarkError: a change was refused.
    """
    chance = random.Random()
    connections = [server.admin_connection() for _ in range(FLIPPERS + WRITERS)]
    flippers, writers = connections[:FLIPPERS], connections[FLIPPERS:]
    flipping = [partial(_flip, server, own, ad_ids[part::FLIPPERS]) for part, own in enumerate(flippers)]
    writing = [partial(_write, server, own, titles, chance) for own in writers]
    threads = _begin(flipping, flips), _begin(writing, writes)
    try:
        yield
    finally:
        for repeating in chain(*threads):
            repeating.end()
        for repeating in chain(*threads):
            repeating.join()
        for connection in connections:
            connection.close()
    for made, of_kind in zip((flips, writes), threads, strict=True):
        for repeating in of_kind:
            repeating.count(made)


def _begin(actions: Sequence[Callable[[int], None]], made: Made) -> "list[_Repeating]":
    """A thread for each caller, whose turns are spread evenly."""
    rate = made.rate / len(actions)
    threads = [_Repeating(action, rate, part / made.rate) for part, action in enumerate(actions)]
    for thread in threads:
        thread.start()
    return threads


class _Repeating(threading.Thread):
    """Does something at a steady rate, from some seconds on, until it is ended."""

    def __init__(self, action: Callable[[int], None], rate: float, first_s: float) -> None:
        super().__init__(daemon=True)
        self._ended = threading.Event()
        self._action = action
        self._rate = rate
        self._first_s = first_s
        self._error: Exception | None = None
        self._made = 0
        self._started_s = self._ended_s = 0.0

    def run(self) -> None:
        """Repeat until it ends."""
        self._started_s = time.monotonic() + self._first_s
        try:
            while not self._ended.wait(max(0.0, self._started_s + self._made / self._rate - time.monotonic())):
                self._action(self._made + 1)
                self._made += 1
        except Exception as error:  # told to the thread that waits
            self._error = error

    def end(self) -> None:
        """Do it no more, once what is being done is done."""
        self._ended_s = time.monotonic()
        self._ended.set()

    def count(self, made: Made) -> None:
        """Add what was made and what was due; raises what went wrong."""
        if self._error is not None:
            raise self._error
        made.made += self._made
        made.due += max(0.0, self._ended_s - self._started_s) * self._rate


def _flip(server: LiveServer, connection: http.client.HTTPConnection, ad_ids: Sequence[str], number: int) -> None:
    """Every ad that is paused is resumed with the next change."""
    ad_id = ad_ids[(number // 2 * 7919) % len(ad_ids)]
    server.set_status(ad_id, "active" if number % 2 else "paused", connection)


def _write(
    server: LiveServer, connection: http.client.HTTPConnection, titles: Sequence[str], chance: random.Random, _: int
) -> None:
    server.put([{"ad_id": f"new-{chance.randrange(1 << 40)}", "title": chance.choice(titles)}], connection)
