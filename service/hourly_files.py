"""Append-only files, one an hour, which are deleted when they are old enough."""

import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

HOUR_S = 3_600
FILE_NAME = re.compile(r"requests-(\d{4}-\d\d-\d\dT\d\d)\.ndjson")
HOUR_FORMAT = "%Y-%m-%dT%H"

Clock = Callable[[], float]
"""Seconds since 1970."""


class HourlyFiles:
    """Appends to one file an hour, readable by its owner alone, and deletes the old ones. For one thread."""

    def __init__(self, directory: Path, retention_s: float, clock: Clock) -> None:
        self._directory = directory
        self._retention_s = retention_s
        self._clock = clock
        self._name = ""
        self._descriptor = -1
        self._torn = False
        self._expired_at = -1.0

    def write(self, lines: bytes) -> int:
        """Append whole lines to the present hour's file; returns how many of them are in it.

        Raises:
            OSError: nothing could be written. The next call starts afresh.
        """
        name = f"requests-{datetime.fromtimestamp(self._clock(), UTC):{HOUR_FORMAT}}.ndjson"
        try:
            if name != self._name:
                self._open(name)
            data = b"\n" + lines if self._torn else lines
            count = os.write(self._descriptor, data)
        except OSError:
            self.close()
            raise
        if count < len(data):  # the disk is full; opening it anew finds the line that was cut off
            self.close()
        written = data[:count].count(b"\n") - self._torn
        self._torn = False
        return written

    def expire(self) -> None:
        """Delete the files whose youngest record is older than the retention; looks once an hour.

        Raises:
            OSError: one cannot be deleted.
        """
        now = self._clock()
        if 0 <= now - self._expired_at < HOUR_S:
            return
        self._expired_at = now
        for path in self._directory.iterdir():
            found = FILE_NAME.fullmatch(path.name)
            if found and _hour(found[1]) + HOUR_S + self._retention_s <= now:
                path.unlink(missing_ok=True)  # another process of the same directory may have been faster

    def close(self) -> None:
        """Close the file; a later `write` opens it again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self._name = -1, ""

    def _open(self, name: str) -> None:
        self.close()
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(self._directory / name, flags, 0o600)
        self._name = name
        size = os.fstat(self._descriptor).st_size
        self._torn = size > 0 and os.pread(self._descriptor, 1, size - 1) != b"\n"  # what was cut off stays by itself


def _hour(text: str) -> float:
    return datetime.strptime(text, HOUR_FORMAT).replace(tzinfo=UTC).timestamp()
