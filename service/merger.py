"""Has the graphs of a live index built anew when it is time, and swaps them: a process builds, a thread swaps."""

import logging
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from time import monotonic

from artifacts.errors import HlmError
from artifacts.manifest import IndexManifest
from artifacts.store import ArtifactError, load_manifest
from cores import give_way
from index.live import LiveIndex
from index.load import needed_bytes
from index.merge import ALONE
from memory import available_bytes, return_freed_memory
from service.errors import MergeError
from service.live_metrics import LiveMetrics

POLL_S = 1.0
RETRY_S = 60.0
"""After a merge that failed: what was wrong is likely to be so still."""
RESERVE_BYTES = 64_000_000
"""Left free for requests, as when a release is loaded."""

logger = logging.getLogger(__name__)


class Merger:
    """Watches one live index on a thread of its own."""

    def __init__(
        self,
        index: LiveIndex,
        metrics: LiveMetrics,
        on_merged: Callable[[], None] = lambda: None,
        *,
        available: Callable[[], int | None] = available_bytes,
    ) -> None:
        """Start to watch; `on_merged` is called on the thread after each merge."""
        self._index = index
        self._metrics = metrics
        self._on_merged = on_merged
        self._available = available
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="merger", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread, and a merge that is going on; blocks."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        give_way()
        wait_s = 0.0
        while not self._closing.wait(wait_s):
            wait_s = POLL_S
            if self._index.live_stats().needs_merge(time.time()) and not self._attempt():
                wait_s = RETRY_S

    def _attempt(self) -> bool:
        """Merge and swap; whether that came to its end."""
        started = monotonic()
        try:
            if not self._adopt_newest(verify=True):  # one may be left from before, or was too large at the time
                self._merge_and_adopt()
            self._on_merged()
        except Exception as error:  # this loop must survive whatever one merge does
            if not self._closing.is_set():
                self._metrics.merged("failed", monotonic() - started)
                logger.log(logging.ERROR, "ads were not merged: %s", error, exc_info=not isinstance(error, HlmError))
            return False
        seconds = monotonic() - started
        self._metrics.merged("merged", seconds)
        logger.info("ads were merged in %.1f s: %s", seconds, self._index.manifest.index_version)
        return True

    def _merge_and_adopt(self) -> None:
        self._merge()
        if not self._adopt_newest(verify=False):  # reading all of it again would cost requests more than linking did
            raise MergeError("the snapshot that was written cannot be used")

    def _adopt_newest(self, *, verify: bool) -> bool:
        """Search the newest snapshot, where it is newer than what is searched and whole; whether it is.

        Raises:
            MergeError: there is not enough memory for it.
        """
        newest = next(iter(self._index.snapshots.newest_first()), None)
        if newest is None or int(newest.name) <= self._index.manifest.sequence:
            return False
        try:
            self._check_memory(newest)
            self._index.adopt(newest, verify=verify)
        except ArtifactError as error:
            logger.error("a snapshot cannot be used: %s", error)  # noqa: TRY400 - it says all
            return False
        return_freed_memory()
        return True

    def _check_memory(self, snapshot: Path) -> None:
        """Two sets of graphs are in memory while one takes over from the other."""
        needed, free = needed_bytes(load_manifest(snapshot, IndexManifest)), self._available()
        if free is not None and needed + RESERVE_BYTES > free:
            raise MergeError(
                f"{snapshot}: needs about {needed / 1e6:,.0f} MB of memory beside what is served and"
                f" {RESERVE_BYTES / 1e6:,.0f} MB of reserve, and {free / 1e6:,.0f} MB are free; ads beside the graphs"
                " go on to be scanned"
            )

    def _merge(self) -> None:
        """Write a snapshot; begins anew where that becomes urgent, since on busy cores little was done by then.

        Raises:
            MergeError: it could not be written, or this is closed.
        """
        urgent = self._index.live_stats().is_urgent
        if not self._run_merge(urgent=urgent):
            self._run_merge(urgent=True)

    def _run_merge(self, *, urgent: bool) -> bool:
        """Write a snapshot, in a process of its own; False where it was ended because it has become urgent."""
        command = [sys.executable, "-m", "index.merge", str(self._index.record), str(self._index.seed)]
        command += ["--urgent"] * urgent
        with (
            tempfile.TemporaryFile("w+") as said,
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said) as process,  # noqa: S603
        ):
            overdue = False
            while process.poll() is None and not overdue and not self._closing.wait(POLL_S / 10):
                overdue = not urgent and self._index.live_stats().is_urgent
            process.communicate()  # closes its standard input, by which it ends where it has not yet
            if overdue and process.returncode == ALONE:
                return False
            if process.returncode:
                said.seek(0)
                raise MergeError(said.read().strip().rpartition("\n")[2].removeprefix("error: "))
        return True
