"""The file of a record: its schema, how it is opened and locked, and what is said when the disk refuses."""

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from index.errors import RecordError, RecordFullError

APPLICATION_ID = 0x484C_4D31
"""`HLM1` in the file's header, by which `file` and we tell a record from other SQLite files."""
FORMAT = 2
PAGE_BYTES = 8192
"""Holds three ads of dim 384 at 2.7 KB each; in pages of 4,096 bytes each would have one of its own."""
BUSY_TIMEOUT_S = 10.0
_NO_ROOM = 13
_DAMAGED = (11, 26)
"""SQLITE_FULL; SQLITE_CORRUPT and SQLITE_NOTADB."""

_SCHEMA = f"""
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT};
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE ads (
    number INTEGER PRIMARY KEY,
    ad_id TEXT NOT NULL UNIQUE,
    sequence INTEGER NOT NULL,
    content_sequence INTEGER NOT NULL,
    document BLOB,
    embedding BLOB,
    embedded_by TEXT
);
CREATE INDEX ads_by_sequence ON ads (sequence) WHERE sequence > 0;
CREATE INDEX deletions ON ads (sequence) WHERE document IS NULL;
CREATE TABLE campaigns (campaign_id TEXT NOT NULL UNIQUE, sequence INTEGER NOT NULL, document BLOB NOT NULL);
"""


class Origin(NamedTuple):
    """The index that a record began with, and what its embeddings are comparable with."""

    index_version: str
    space_id: str
    dim: int


def create(path: Path, origin: Origin) -> sqlite3.Connection:
    """Begin a record in a file that is not there yet; without journal or sync, so it must not be used before `seal`."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    db.execute("PRAGMA journal_mode = OFF")
    db.execute("PRAGMA synchronous = OFF")
    db.executescript(_SCHEMA)
    db.executemany("INSERT INTO meta VALUES (?, ?)", origin._asdict().items())
    return db


def seal(db: sqlite3.Connection) -> None:
    """End what `create` began: from here on the file has a write-ahead log, for good."""
    db.execute("INSERT INTO meta SELECT 'seeded', coalesce(max(number), 0) FROM ads")
    db.execute("PRAGMA journal_mode = WAL")
    db.close()


def connect(path: Path, *, write: bool) -> tuple[sqlite3.Connection, Origin]:
    """Open a record.

    Raises:
        RecordError: it cannot be opened, is damaged, or is no record of this format.
    """
    if not path.is_file():
        raise RecordError(f"{path}: there is no record; expected a file")
    with clear_errors(path):
        db = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw",
            uri=True,
            isolation_level=None,
            timeout=BUSY_TIMEOUT_S,
            check_same_thread=False,
        )
        try:
            # A connection that only reads takes part in the write-ahead log too, so it is no read-only one.
            db.execute(f"PRAGMA query_only = {int(not write)}")
            return db, _origin(path, db)
        except BaseException:
            db.close()
            raise


def _origin(path: Path, db: sqlite3.Connection) -> Origin:
    [(application_id,)], [(found,)] = (db.execute(f"PRAGMA {name}") for name in ("application_id", "user_version"))
    if application_id != APPLICATION_ID:
        raise RecordError(f"{path}: is a file of another kind; expected a record of ads")
    if found != FORMAT:
        raise RecordError(f"{path}: is a record of format {found}; this version reads format {FORMAT}")
    marks = ",".join("?" * len(Origin._fields))
    meta = dict(db.execute(f"SELECT name, value FROM meta WHERE name IN ({marks})", Origin._fields))  # noqa: S608
    return Origin(**meta)


def forgotten(db: sqlite3.Connection) -> int:
    """Deletions by changes before this number may be missing."""
    row = db.execute("SELECT value FROM meta WHERE name = 'forgotten'").fetchone()
    return row[0] if row else 0


def last_sequence(db: sqlite3.Connection) -> int:
    """The number of the last change, 0 where there was none."""
    queries = ("SELECT max(sequence) FROM ads WHERE sequence > 0", "SELECT max(sequence) FROM campaigns")
    return max(db.execute(query).fetchone()[0] or 0 for query in queries)


def lock(path: Path) -> int:
    """Take the lock that a record's one writer holds; gives the handle to close, which a kill does too.

    Raises:
        RecordError: another process has it.
    """
    # Not on the file itself: to close any handle of that would drop SQLite's own locks.
    handle = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise RecordError(f"{path}: another process writes this record; each service needs one of its own") from error
    return handle


@contextlib.contextmanager
def clear_errors(path: Path) -> Iterator[None]:
    """Turn what SQLite says into one sentence.

    Raises:
        RecordFullError: there is no room.
        RecordError: anything else.
    """
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == _NO_ROOM:
            raise RecordFullError(f"{path}: there is no room on the disk ({error})") from error
        if code in _DAMAGED:
            raise RecordError(f"{path}: the record is damaged ({error})") from error
        raise RecordError(f"{path}: the record cannot be used ({error})") from error
