"""The bases of a live index: artifacts beside its record, each named by the last change that is in it.

    shop.db              the record
    shop.db.snapshots/   000000004711/  000000004200/

The newest is the one to use; the one before it is kept, for the case that the newest is found to be damaged. Each is
published whole, so what a killed process leaves behind is never taken for one.
"""

import contextlib
import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from artifacts.store import ArtifactError
from index.errors import MergeBusyError
from index.load import FrozenIndex, load_index

KEPT = 2

logger = logging.getLogger(__name__)


class Snapshots:
    """The snapshots of one record."""

    def __init__(self, record: Path) -> None:
        """Take the record's path; there need not be any."""
        self.directory = record.with_name(f"{record.name}.snapshots")

    def newest_first(self) -> list[Path]:
        """All there are."""
        if not self.directory.is_dir():
            return []
        return sorted((path for path in self.directory.iterdir() if path.name.isdigit()), reverse=True)

    def known_to_all(self, last: int) -> int:
        """Sequence number up to which every snapshot has all changes.

        0 where there are fewer than are kept: who follows the changes is to see each for a while.

        Args:
            last: sequence number of the record's last change; a snapshot beyond it is not the record's.
        """
        sequences = [int(path.name) for path in self.newest_first() if int(path.name) <= last]
        return min(sequences) if len(sequences) >= KEPT else 0

    def path_of(self, sequence: int) -> Path:
        """Where that with the changes up to some sequence number belongs."""
        return self.directory / f"{sequence:012d}"

    def open_newest(self, seed: Path, *, threads: int = 1) -> tuple[FrozenIndex, Path]:
        """The newest that is whole, or else the index that the record began with; and where it lies.

        Args:
            seed: that index.
            threads: how many compare files with their hashes.

        Raises:
            ArtifactError: none of them is; names the file that is damaged in the last one tried.
        """
        for path in self.newest_first():
            try:
                return load_index(path, threads=threads), path
            except ArtifactError as error:
                logger.error("a snapshot cannot be used, an older one is: %s", error)  # noqa: TRY400 - it says all
        return load_index(seed, threads=threads), seed

    def drop_strange(self, forgotten: int, last: int) -> None:
        """Remove those that the record cannot bring up to date: they or it were restored, or its last commits lost.

        Args:
            forgotten: deletions before this sequence number are in the record no more.
            last: sequence number of its last change.
        """
        for path in self.newest_first():
            if not forgotten <= int(path.name) <= last:
                logger.warning("%s: removed, since its record has changes from %d to %d alone", path, forgotten, last)
                shutil.rmtree(path)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Be the one process that writes a snapshot; tidies up before and after.

        Raises:
            MergeBusyError: another one does.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.directory, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._tidy()
            yield
            self._tidy()
        except BlockingIOError as error:
            raise MergeBusyError(f"{self.directory}: another process writes a snapshot; wait for it to end") from error
        finally:
            os.close(handle)  # the kernel drops the lock with it, also when the process is killed

    def _tidy(self) -> None:
        """Remove all but the newest, and what killed processes left; whoever has files of them open keeps those."""
        kept = self.newest_first()[:KEPT]
        for path in self.directory.iterdir():
            if path not in kept:
                shutil.rmtree(path, ignore_errors=True)
