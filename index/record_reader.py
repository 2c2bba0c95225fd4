"""Reads a record beside the thread that writes it."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from index.ad_document import read_ad, read_campaign, read_embedding
from index.changes import AdState, CampaignState, State
from index.errors import RecordError
from index.record_file import clear_errors, connect, forgotten, last_sequence

PAGE_ROWS = 500
"""Read at a time, so that no read holds a transaction open for long."""
MOST_IDLE_READERS = 2
"""Kept open for the next who reads."""


class EmbeddedAd(NamedTuple):
    """An ad and where its embedding is from."""

    state: AdState
    embedded_by: str | None
    """Model version of the encoder; None where it came with the ad."""


class RecordReader:
    """Reads a record; one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            RecordError: it cannot be opened, or is no record of this format.
        """
        self.path = path
        self._db, self.origin = connect(path, write=False)

    @property
    def sequence(self) -> int:
        """Of the last change, 0 where there was none."""
        with clear_errors(self.path):
            return last_sequence(self._db)

    @property
    def forgotten(self) -> int:
        """Deletions by changes before this number may be missing; 0 where none is."""
        with clear_errors(self.path):
            return forgotten(self._db)

    def check(self) -> None:
        """Read through the whole file, at about 1 GB a second where it is cached.

        Raises:
            RecordError: it is damaged.
        """
        [(verdict,)] = self._read("PRAGMA quick_check(1)")
        if verdict != "ok":
            raise RecordError(f"{self.path}: the record is damaged ({' '.join(str(verdict).split())})")

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[int]:
        """Read one state of the record, whatever is written meanwhile; gives its sequence number."""
        with self._one_moment():
            yield self.sequence

    @contextlib.contextmanager
    def _one_moment(self) -> Iterator[None]:
        """Let several queries see the same state; within `standing_still` they do already."""
        if self._db.in_transaction:
            yield
            return
        self._read("BEGIN")
        try:
            yield
        finally:
            self._db.rollback()

    def find(self, ad_id: str) -> EmbeddedAd | None:
        """An ad; None where there is none."""
        rows = self._read(
            "SELECT ad_id, sequence, document, embedding, embedded_by FROM ads"
            " WHERE ad_id = ? AND document IS NOT NULL",
            ad_id,
        )
        return next((EmbeddedAd(_ad_state(row[:4]), row[4]) for row in rows), None)

    def find_campaign(self, campaign_id: str) -> CampaignState | None:
        """A campaign; None where nobody has described it."""
        rows = self._read("SELECT sequence, document FROM campaigns WHERE campaign_id = ?", campaign_id)
        return next(map(_campaign_state, rows), None)

    def changes_since(self, since: int) -> Iterator[State]:
        """What has changed, in the order of each one's last change; what changes meanwhile comes too.

        An ad comes without its embedding where nothing but status and bid has changed since.
        """
        after = since
        while page := self.page(after, PAGE_ROWS, content_since=since):
            yield from page
            after = page[-1].sequence

    def page(self, after: int, limit: int, *, content_since: int | None = None) -> list[State]:
        """The first changes after a sequence number.

        Args:
            after: the sequence number.
            limit: how many at most.
            content_since: ads come with their embeddings where more than status and bid has changed since; by default
                without.
        """
        # Else an ad and then a campaign could change between the queries, and the ad be passed over.
        with self._one_moment():
            # SQLite uses the index, which leaves number 0 out, only where the query leaves it out too.
            ads = self._read(
                "SELECT ad_id, sequence, document, CASE WHEN content_sequence > ? THEN embedding END FROM ads"
                " WHERE sequence > 0 AND sequence > ? ORDER BY sequence LIMIT ?",
                *(2**62 if content_since is None else content_since, after, limit),
            )
            campaigns = self._read(
                "SELECT sequence, document FROM campaigns WHERE sequence > ? ORDER BY sequence LIMIT ?", after, limit
            )
        states: list[State] = [*map(_ad_state, ads), *map(_campaign_state, campaigns)]
        return sorted(states, key=lambda state: state.sequence)[:limit]

    def ads(self) -> Iterator[AdState]:
        """All ads that there are, with their embeddings, in the order in which they first came."""
        after = 0
        query = (
            "SELECT number, ad_id, sequence, document, embedding FROM ads"
            " WHERE document IS NOT NULL AND number > ? ORDER BY number LIMIT ?"
        )
        while rows := self._read(query, after, PAGE_ROWS):
            yield from (_ad_state(row[1:]) for row in rows)
            after = rows[-1][0]

    def campaigns(self) -> list[CampaignState]:
        """All campaigns that were described."""
        return [_campaign_state(row) for row in self._read("SELECT sequence, document FROM campaigns ORDER BY rowid")]

    def close(self) -> None:
        """Close it."""
        self._db.close()

    def _read(self, query: str, *values: object) -> list[Any]:
        with clear_errors(self.path):
            return self._db.execute(query, values).fetchall()


class Readers:
    """Readers of one record that are kept open: a first read by a new one takes 0.4 ms, each further one 0.04 ms.

    Each is used by one thread at a time, and holds no transaction while none uses it.
    """

    def __init__(self, path: Path) -> None:
        """Open none yet."""
        self._path = path
        self._idle: list[RecordReader] = []
        self._lock = threading.Lock()
        self._closed = False

    @contextlib.contextmanager
    def reader(self) -> Iterator[RecordReader]:
        """One to use within the block; after `close` it is opened and closed for it.

        Raises:
            RecordError: it cannot be opened, or is no record of this format.
        """
        with self._lock:
            reader = self._idle.pop() if self._idle else None
        reader = reader or RecordReader(self._path)
        try:
            yield reader
        except BaseException:
            reader.close()  # which may be what went wrong
            raise
        with self._lock:
            if not self._closed and len(self._idle) < MOST_IDLE_READERS:
                self._idle.append(reader)
                return
        reader.close()

    def close(self) -> None:
        """Close those that are idle now, and each of the others when it is idle."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for reader in idle:
            reader.close()


def _ad_state(row: tuple[str, int, bytes | None, bytes | None]) -> AdState:
    ad_id, sequence, document, embedding = row
    ad = None if document is None else read_ad(document)
    return AdState(sequence, ad_id, ad, None if embedding is None else read_embedding(embedding))


def _campaign_state(row: tuple[int, bytes]) -> CampaignState:
    return CampaignState(row[0], read_campaign(row[1]))
