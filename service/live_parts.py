"""What of a release goes on changing while it is served: its index, the thread that changes it, the one that merges.

Releases with the same index and record share them. They end when no release has them any more.
"""

import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from index.live import LiveIndex
from index.record import Synchronous
from index.record_seed import open_record
from index.writer import AdWriter
from service.ad_metrics import AdMetrics
from service.live_metrics import LiveMetrics
from service.merger import Merger


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class LiveParts:
    """Of one record. Whoever holds this keeps them going."""

    index: LiveIndex
    writer: AdWriter
    merger: Merger

    def close(self) -> None:
        """Make the changes that are queued, then end both threads; blocks."""
        _close(self.writer, self.merger)


class LiveOpener:
    """Opens the live parts of releases; from one thread at a time."""

    def __init__(
        self,
        synchronous: Synchronous,
        changes: AdMetrics,
        merges: LiveMetrics,
        is_busy: Callable[[], bool] = lambda: False,
    ) -> None:
        """Take how changes are made durable, who counts changes and merges, and whether requests are being answered."""
        self._synchronous = synchronous
        self._changes = changes
        self._merges = merges
        self._is_busy = is_busy
        self._closing: dict[Path, threading.Thread] = {}

    def open(self, record_path: Path, index: Path, *, threads: int = 1) -> LiveParts:
        """Open a record, which begins with the ads of an index artifact where there is none, and search what it says.

        Args:
            record_path: the record.
            index: the artifact.
            threads: how many compare files with their hashes.

        Raises:
            ArtifactError: neither the artifact nor a snapshot is whole.
            RecordError: the record cannot be used.
        """
        key = record_path.resolve()
        closing = self._closing.pop(key, None)
        if closing is not None:
            closing.join()
        record = open_record(record_path, index, synchronous=self._synchronous)
        try:
            live = LiveIndex.open(record_path, index, threads=threads)
        except BaseException:
            record.close()
            raise
        writer = AdWriter(record, live, self._changes.committed, is_busy=self._is_busy)
        parts = LiveParts(live, writer, Merger(live, self._merges, writer.forget_deletions))
        weakref.finalize(parts, self._close_later, key, parts.writer, parts.merger).atexit = False
        return parts

    def _close_later(self, key: Path, writer: AdWriter, merger: Merger) -> None:
        """On a thread of its own: the last release may end anywhere, also on the event loop."""
        self._closing[key] = thread = threading.Thread(target=_close, args=(writer, merger), name="live-close")
        thread.start()


def _close(writer: AdWriter, merger: Merger) -> None:
    merger.close()
    writer.close()
