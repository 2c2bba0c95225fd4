"""The real admin listener on a free port, over a stand-in for what loads releases: that takes seconds."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Any

from service.ad_changes import AdChanges
from service.admin import admin_listener
from service.errors import StartupError
from service.low_lane import LowLane
from service.metrics import Metrics
from service.release import Release
from service.settings import ReleaseSettings, ServerSettings

TOKEN = "0123456789abcdef"


class FakeReleases:
    """Swaps names and paths at once; rejects a release called `bad`, and never finishes one called `slow`."""

    def __init__(self) -> None:
        self.used: list[ReleaseSettings] = []
        self.stable = _described("first", "encoders/e1", "indexes/i1")
        self.previous: dict[str, object] | None = None
        self.last_swap: dict[str, object] | None = None
        self.loading = threading.Event()
        """Set while `slow` is being loaded."""

    async def use(self, settings: ReleaseSettings) -> dict[str, object]:
        self.used.append(settings)
        if settings.name == "bad":
            return self._swapped("rejected", settings.name, "encoder x (space 1) cannot serve index y (space 2)")
        if settings.name == "late":
            return self._swapped("superseded", settings.name, "another was wanted before it was loaded")
        if settings.name == "broken":
            raise ZeroDivisionError("internals")
        if settings.name == "slow":
            self.loading.set()
            await asyncio.Event().wait()
        self.previous = self.stable
        self.stable = _described(settings.name, str(settings.encoder), str(settings.index))
        return self._swapped("swapped", settings.name)

    async def rollback(self) -> dict[str, object]:
        if self.previous is None:
            raise StartupError("there is no previous release in memory to roll back to")
        self.stable, self.previous = self.previous, None
        return self._swapped("rolled_back", str(self.stable["name"]))

    def status(self) -> dict[str, object]:
        return {"stable": self.stable, "canary": None, "previous": self.previous, "last_swap": self.last_swap}

    def _swapped(self, result: str, name: str, reason: str | None = None) -> dict[str, object]:
        self.last_swap = {"result": result, "release": name, "role": "stable", "reason": reason}
        return self.last_swap


def _described(name: str, encoder: str, index: str) -> dict[str, object]:
    return {
        "name": name,
        "model_version": f"{name}-m",
        "index_version": f"{name}-i",
        "encoder": encoder,
        "index": index,
    }


def no_changes() -> AdChanges:
    """Of a service that has no release yet; nothing waits in its lane, so that need not run."""
    metrics = Metrics()
    return AdChanges(lambda: (), LowLane(metrics.lane), metrics.ads)


@contextlib.contextmanager
def listening(
    releases: FakeReleases, held: Sequence[Release] = (), metrics: Metrics | None = None, **settings: Any
) -> Iterator[str]:
    """Answer on a free port until the block ends; HLM_ADMIN_TOKEN must be set. Gives the URL.

    `held` are the releases whose ads can be changed, the stable one first.
    """
    url: Future[str] = Future()
    ending: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def run() -> None:
        end = asyncio.Event()
        ending.set_result((asyncio.get_running_loop(), end))
        counted = metrics or Metrics()
        lane = LowLane(counted.lane)
        lane.start()
        async with admin_listener(
            ServerSettings(admin_port=0, **settings), releases, AdChanges(lambda: held, lane, counted.ads)
        ) as at:
            assert at is not None
            url.set_result(at)
            await end.wait()
        await lane.stop()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    loop, end = ending.result()
    try:
        yield url.result(timeout=30)
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join()
