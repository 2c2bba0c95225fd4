"""The durable record: what is true of each ad and campaign, in SQLite. The index in memory follows from it.

    ads        number  ad_id  sequence  content_sequence  document  embedding  embedded_by
    campaigns  campaign_id  sequence  document
    meta       name  value

It holds state and no log: one row an ad, with the sequence number of its last change. What has happened since a
snapshot is the rows with a higher number, in their order, however often each has changed. The ads of the index that it
began with have sequence number 0. A deleted ad keeps a row without a document, so that a snapshot learns of it; that
of an ad which came later than the record's beginning is removed once every snapshot has learned.

One thread of one process writes (`Record`); any number of connections read beside it (`index.record_reader`), also
those of other processes.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from index.ad_document import content, read_ad, read_campaign, write_ad, write_campaign
from index.changes import (
    AdState,
    CampaignState,
    Change,
    Delete,
    PatchAd,
    PatchCampaign,
    State,
    Upsert,
    patched,
    patched_campaign,
)
from index.errors import UnknownAdError
from index.record_file import clear_errors, connect, last_sequence, lock
from index.targeting import Campaign

Synchronous = Literal["full", "normal"]

WAL_BYTES = 64_000_000
"""What is left of the write-ahead log when a burst of changes is over."""
FORGOTTEN_AT_ONCE = 500
"""Deleted ads of which the rest is removed in one transaction: 1 to 2 ms of work."""


class _Row(NamedTuple):
    document: bytes
    embedding: bytes
    embedded_by: str | None
    content_sequence: int


class Record:
    """Writes a record; one thread of one process, which holds its lock."""

    def __init__(self, path: Path, *, synchronous: Synchronous = "full") -> None:
        """Open it.

        Args:
            path: of the file; `index.record_seed.open_record` makes one where there is none.
            synchronous: `full` syncs the disk with each commit, so that a power loss loses nothing that was
                acknowledged. With `normal` it may lose the last commits, but damages nothing, and a killed process
                loses nothing either way.

        Raises:
            RecordError: it cannot be opened, is no record of this format, or another process writes it.
        """
        self.path = path
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, lock(path))
            self._db, self.origin = connect(path, write=True)
            undo.callback(self._db.close)
            with clear_errors(path):
                self._db.execute(f"PRAGMA synchronous = {synchronous}")
                self._db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
                self.sequence = last_sequence(self._db)
            self._closing = undo.pop_all()

    @contextlib.contextmanager
    def transaction(self) -> Iterator["Transaction"]:
        """Make changes together: all of them are durable when the block ends, none where it raises.

        Raises:
            RecordFullError: there is no room for them.
            RecordError: the disk refuses otherwise.
        """
        with clear_errors(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                transaction = Transaction(self._db, self.sequence)
                yield transaction
                self._db.execute("COMMIT")
            except BaseException:
                self._db.rollback()  # nothing where SQLite has done so by itself
                raise
            self.sequence = transaction.sequence

    def close(self) -> None:
        """Move what is in the write-ahead log to the file, and let go of both."""
        self._closing.close()


class Transaction:
    """Changes that become durable together."""

    def __init__(self, db: sqlite3.Connection, sequence: int) -> None:
        """Begin after the change of some sequence number."""
        self._db = db
        self.sequence = sequence
        """Of the last change."""

    def make(self, change: Change) -> State | None:
        """Make one change; gives what is true after it, None where it was before.

        Raises:
            UnknownAdError: there is no such ad to patch or delete.
        """
        match change:
            case Upsert():
                return self._upsert(change)
            case Delete():
                return self._delete(change)
            case PatchAd():
                return self._patch_ad(change)
            case PatchCampaign():
                return self._patch_campaign(change)

    def forget_deletions(self, since: int, before: int) -> int:
        """Remove what is left of some ads that were deleted by changes of a range; gives up to where that is done.

        The index that the record began with may be opened at any time, so what is left of its own ads stays.

        Args:
            since: where the range begins.
            before: where it ends; every snapshot that may still be opened has all changes up to this sequence number,
                which is that of the last change at most.
        """
        # Strictly before, so that the last change, whose number must not come again, stays whatever it was.
        assert before <= self.sequence
        deletions = "FROM ads WHERE document IS NULL AND sequence >= ? AND sequence < ?"
        query = f"SELECT sequence {deletions} ORDER BY sequence LIMIT 1 OFFSET {FORGOTTEN_AT_ONCE}"
        [(end,)] = self._db.execute(query, (since, before)).fetchall() or [(before,)]
        seeded = "(SELECT value FROM meta WHERE name = 'seeded')"
        if self._db.execute(f"DELETE {deletions} AND number > {seeded}", (since, end)).rowcount:
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('forgotten', ?)", (end,))
        return int(end)

    def _upsert(self, change: Upsert) -> AdState | None:
        ad_id, document, embedding = change.ad.ad_id, write_ad(change.ad), change.embedding.tobytes()
        before = self._row(ad_id)
        if before and before[:3] == (document, embedding, change.embedded_by):
            return None
        sequence = content_sequence = self._next()
        changed = not before or before.embedding != embedding or content(before.document) != content(document)
        if before and not changed:
            content_sequence = before.content_sequence
        self._db.execute(
            "INSERT INTO ads (ad_id, sequence, content_sequence, document, embedding, embedded_by)"
            " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (ad_id) DO UPDATE SET sequence = excluded.sequence,"
            " content_sequence = excluded.content_sequence, document = excluded.document,"
            " embedding = excluded.embedding, embedded_by = excluded.embedded_by",
            (ad_id, sequence, content_sequence, document, embedding, change.embedded_by),
        )
        return AdState(sequence, ad_id, change.ad, change.embedding if changed else None)

    def _delete(self, change: Delete) -> AdState:
        self._known(change.ad_id)
        sequence = self._next()
        self._db.execute(
            "UPDATE ads SET sequence = ?, content_sequence = ?, document = NULL, embedding = NULL, embedded_by = NULL"
            " WHERE ad_id = ?",
            (sequence, sequence, change.ad_id),
        )
        return AdState(sequence, change.ad_id, None, None)

    def _patch_ad(self, change: PatchAd) -> AdState | None:
        before = self._known(change.ad_id)
        ad = patched(read_ad(before.document), change.patch)
        document = write_ad(ad)
        if document == before.document:
            return None
        sequence = self._next()
        values = (sequence, document, change.ad_id)
        self._db.execute("UPDATE ads SET sequence = ?, document = ? WHERE ad_id = ?", values)
        return AdState(sequence, change.ad_id, ad, None)

    def _patch_campaign(self, change: PatchCampaign) -> CampaignState | None:
        query = "SELECT document FROM campaigns WHERE campaign_id = ?"
        row = self._db.execute(query, (change.campaign_id,)).fetchone()
        before = read_campaign(row[0]) if row else Campaign(campaign_id=change.campaign_id)
        after = patched_campaign(before, change.patch)
        if row and after == before:
            return None
        sequence = self._next()
        self._db.execute(
            "INSERT INTO campaigns (campaign_id, sequence, document) VALUES (?, ?, ?) ON CONFLICT (campaign_id)"
            " DO UPDATE SET sequence = excluded.sequence, document = excluded.document",
            (change.campaign_id, sequence, write_campaign(after)),
        )
        return CampaignState(sequence, after)

    def _next(self) -> int:
        self.sequence += 1
        return self.sequence

    def _row(self, ad_id: str) -> _Row | None:
        query = "SELECT document, embedding, embedded_by, content_sequence FROM ads WHERE ad_id = ?"
        row = self._db.execute(query, (ad_id,)).fetchone()
        return None if row is None or row[0] is None else _Row(*row)

    def _known(self, ad_id: str) -> _Row:
        row = self._row(ad_id)
        if row is None:
            raise UnknownAdError(f"there is no ad {ad_id!r}")
        return row
