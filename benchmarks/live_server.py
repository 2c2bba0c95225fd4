"""A server whose ads are changed while it answers."""

import http.client
import itertools
import json
import random
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.errors import BenchmarkError
from benchmarks.replica import Replica, free_port
from benchmarks.servers import CACHE_OFF

MAX_TOP_K = 1_000
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

    def change(self, method: str, path: str, body: bytes = b"") -> None:
        """Change ads, and return when that is acknowledged.

        Raises:
            BenchmarkError: it was refused.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self._admin_port, timeout=60)
        connection.request(method, path, body, {"Authorization": f"Bearer {self._token}"})
        answer = connection.getresponse()
        said = answer.read()
        connection.close()
        if answer.status != 200 or json.loads(said)["failed_count"]:
            raise BenchmarkError(f"{method} {path} was answered {answer.status}: {said[:200].decode()}")

    def put(self, ads: Sequence[dict[str, Any]]) -> None:
        """Write ads."""
        self.change("PUT", "/ads", b"\n".join(json.dumps(ad).encode() for ad in ads))

    def set_status(self, ad_id: str, status: str) -> None:
        """Pause or resume an ad."""
        self.change("PATCH", f"/ads/{ad_id}", json.dumps({"status": status}).encode())

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


@contextmanager
def changes(
    server: LiveServer, ad_ids: Sequence[str], titles: Sequence[str], rates: tuple[float, float]
) -> Iterator[None]:
    """Change the status of ads, and write new ones, so many a second each, as long as the block runs.

    Raises:
        BenchmarkError: a change was refused, or they were not that many.
    """
    ended, chance = threading.Event(), random.Random()
    threads = [
        _Repeating(lambda number: _flip(server, ad_ids, number), rates[0], ended),
        _Repeating(lambda _: _write(server, titles, chance), rates[1], ended),
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    for thread in threads:
        thread.check()


class _Repeating(threading.Thread):
    """Does something at a steady rate."""

    def __init__(self, action: Callable[[int], None], rate: float, ended: threading.Event) -> None:
        super().__init__(daemon=True)
        self._action = action
        self._rate = rate
        self._ended = ended
        self._error: Exception | None = None
        self._late_s = 0.0

    def run(self) -> None:
        """Repeat until it ends."""
        started = time.monotonic()
        try:
            for number in itertools.count(1):
                self._action(number)
                left = started + number / self._rate - time.monotonic()
                self._late_s = max(0.0, -left)
                if self._ended.wait(max(0.0, left)):
                    return
        except Exception as error:  # told to the thread that waits
            self._error = error

    def check(self) -> None:
        """Raise what went wrong."""
        if self._error is not None:
            raise self._error
        if self._late_s > 1.0:
            raise BenchmarkError(f"changes were {self._late_s:.1f} s behind the {self._rate:g} a second that were due")


def _flip(server: LiveServer, ad_ids: Sequence[str], number: int) -> None:
    """Every ad that is paused is resumed with the next change."""
    ad_id = ad_ids[(number // 2 * 7919) % len(ad_ids)]
    server.set_status(ad_id, "active" if number % 2 else "paused")


def _write(server: LiveServer, titles: Sequence[str], chance: random.Random) -> None:
    server.put([{"ad_id": f"new-{chance.randrange(1 << 40)}", "title": chance.choice(titles)}])
