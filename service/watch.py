"""Watches the configuration file and has its releases served."""

import asyncio
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from watchfiles import awatch

from artifacts.errors import HlmError
from service.settings import Settings

APPLIED_AT_ONCE = frozenset({"release", "canary", "shadow"})
"""Sections that need no restart."""
LOOK_EVERY_MS = 1_000
"""The file is looked at this often even where nothing tells of changes: on some network file systems, and before the
first directory is watched."""

logger = logging.getLogger(__name__)


class Applies(Protocol):
    """What becomes of changed settings; `service.releases.Releases`."""

    async def apply(self, settings: Settings) -> bool:
        """Serve what they say; whether all of it is served now."""
        ...

    def reject(self, reason: str) -> None:
        """Record that they could not be read."""
        ...


@dataclass(frozen=True, slots=True)
class _Sight:
    """A file as it was seen: which one, written when, with what in it."""

    written: tuple[int, int] | None
    """Inode, and nanoseconds; None where there is no such file."""
    digest: bytes

    @classmethod
    def of(cls, path: Path) -> "_Sight":
        try:
            stat = path.stat()
            return cls((stat.st_ino, stat.st_mtime_ns), hashlib.sha256(path.read_bytes()).digest())
        except OSError:
            return cls(None, b"")


class ConfigWatch:
    """Applies the configuration file whenever its content changes, and again when it is touched after a rejection.

    The file may be edited in place, replaced by a rename, or reached through links that are set anew, as Kubernetes
    does with a ConfigMap: what is watched are the directories, and what counts is what the path leads to.
    """

    def __init__(self, path: Path, read: Callable[[], Settings], settings: Settings, releases: Applies) -> None:
        """Watch nothing before `run`.

        Args:
            path: the file.
            read: reads it, with whatever overrides it on the command line.
            settings: as they were read at the start.
            releases: what the changes are for.
        """
        self._path = path
        self._read = read
        self._at_start = settings
        self._releases = releases
        self._seen = _Sight.of(path)
        self._rejected = False
        self._applying: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            try:
                await self._watch(self._directories())
            except (OSError, RuntimeError) as error:  # a directory that vanished, or no inotify watches left
                logger.warning("%s cannot be watched, only looked at (%s)", self._path, error)
                await asyncio.sleep(LOOK_EVERY_MS / 1e3)
                await self.look()

    async def _watch(self, directories: set[Path]) -> None:
        """Look at the file as long as these are the directories on the way to it."""
        async for _ in awatch(
            *directories,
            watch_filter=None,
            recursive=False,
            rust_timeout=LOOK_EVERY_MS,
            yield_on_timeout=True,
        ):
            await self.look()
            if self._directories() != directories:
                return

    async def look(self) -> None:
        """Apply the file if its content is new, or if it was written again after a rejection."""
        before, self._seen = self._seen, _Sight.of(self._path)
        if self._seen == before or (self._seen.digest == before.digest and not self._rejected):
            return
        try:
            settings = await asyncio.to_thread(self._read)
        except HlmError as error:
            self._rejected = True
            self._releases.reject(str(error))
            return
        logger.info("%s has changed", self._path)
        if waiting := _changed(self._at_start, settings):
            logger.warning("%s: %s changed, which takes a restart", self._path, ", ".join(waiting))
        applying = asyncio.create_task(self._apply(settings))  # loading takes a while, and the next edit should count
        self._applying.add(applying)
        applying.add_done_callback(self._applying.discard)

    async def _apply(self, settings: Settings) -> None:
        self._rejected = not await self._releases.apply(settings)

    def _directories(self) -> set[Path]:
        """That of the file and those of every link on the way to it."""
        found = {self._path.parent, self._path.resolve().parent}
        return {directory for directory in found if directory.is_dir()}


def _changed(before: Settings, after: Settings) -> list[str]:
    """Settings that differ and are not applied, by their names."""
    return [
        f"{section}.{name}"
        for section in Settings.model_fields
        if section not in APPLIED_AT_ONCE
        for name in type(getattr(before, section)).model_fields
        if getattr(getattr(before, section), name) != getattr(getattr(after, section), name)
    ]
