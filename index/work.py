"""The work directory beside an index: what a build keeps so that, killed, the next one goes on from there."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from artifacts.store import write_atomic
from index.errors import BuildError

_FINGERPRINT = "fingerprint"


@contextlib.contextmanager
def work_directory(target: Path, fingerprint: str) -> Iterator[Path]:
    """Yield `.NAME.work` beside the target, held by this process alone.

    What an earlier run left is kept if it had the same fingerprint and dropped otherwise. The directory goes when the
    block ends well, and stays when it raises or the process dies.

    Raises:
        BuildError: another process builds the same target.
    """
    work = _path(target)
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BuildError(f"{target}: cannot be built there ({error.strerror})") from error
    with _lock(work, target):
        if not _has_fingerprint(work, fingerprint):
            _clear(work)
            write_atomic(work / _FINGERPRINT, fingerprint.encode())
        yield work
        shutil.rmtree(work)


def drop_leftovers(target: Path) -> None:
    """Remove what a process left that was killed between publishing the target and tidying up."""
    if _path(target).exists():
        with contextlib.suppress(BuildError), work_directory(target, ""):
            pass


def _path(target: Path) -> Path:
    return target.parent / f".{target.name}.work"


@contextlib.contextmanager
def _lock(work: Path, target: Path) -> Iterator[None]:
    handle = os.open(work, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise BuildError(f"{target}: is being built by another process; wait for it to end") from error
    finally:
        os.close(handle)  # the kernel drops the lock with it, also when the process is killed


def _has_fingerprint(work: Path, fingerprint: str) -> bool:
    with contextlib.suppress(OSError):
        return (work / _FINGERPRINT).read_text() == fingerprint
    return False


def _clear(work: Path) -> None:
    for path in work.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
