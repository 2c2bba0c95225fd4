"""Readers that are kept open beside the thread that writes."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from index.errors import RecordError
from index.record import Record
from index.record_reader import MOST_IDLE_READERS, Readers, RecordReader
from tests.index.records import empty_record, make, upsert


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    opened = Record(empty_record(tmp_path / "record.db"))
    yield opened
    opened.close()


@pytest.fixture
def readers(record: Record) -> Iterator[Readers]:
    made = Readers(record.path)
    yield made
    made.close()


def is_open(reader: RecordReader) -> bool:
    try:
        return reader.sequence >= 0
    except RecordError:
        return False


def test_the_next_gets_the_same_reader_and_sees_what_was_written_since(record: Record, readers: Readers):
    with readers.reader() as first:
        assert first.find("a") is None
    make(record, upsert("a"))
    with readers.reader() as second:
        assert second is first
        assert second.find("a") is not None


def test_two_at_a_time_have_one_each_and_some_are_kept(readers: Readers):
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(readers.reader()) for _ in range(MOST_IDLE_READERS + 1)]
        assert len(set(map(id, opened))) == len(opened)
    assert sum(map(is_open, opened)) == MOST_IDLE_READERS


def test_one_that_failed_is_not_used_again(readers: Readers):
    with pytest.raises(ZeroDivisionError), readers.reader() as failed:
        raise ZeroDivisionError
    assert not is_open(failed)
    with readers.reader() as another:
        assert is_open(another)


def test_what_is_kept_holds_no_transaction_that_would_keep_the_log_from_being_moved(record: Record, readers: Readers):
    with readers.reader() as reader:
        reader.find("a")
        reader.page(0, 10)
    make(record, upsert("a"))
    busy, in_log, moved = record._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert (busy, in_log, moved) == (0, 0, 0)


def test_after_the_end_none_is_kept(readers: Readers):
    with readers.reader() as before, readers.reader() as during:
        readers.close()
    with readers.reader() as after:
        assert is_open(after)
    assert not any(map(is_open, (before, during, after)))
