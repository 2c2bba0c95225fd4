"""Records for tests: empty ones, changes to make, and what a reader finds of them."""

from pathlib import Path
from typing import Any

from index.changes import AdState, Upsert
from index.feed import FeedAd
from index.record import Record
from index.record_file import Origin, create, seal
from index.record_reader import RecordReader
from tests.index.support import DIM, unit_vectors

ORIGIN = Origin("shop-12345678", "space-1", DIM)
EMBEDDINGS = unit_vectors(64)


def empty_record(path: Path) -> Path:
    seal(create(path, ORIGIN))
    return path


def upsert(ad_id: str, embedding: int = 0, *, embedded_by: str | None = None, **fields: Any) -> Upsert:
    """`embedding` is a position in `EMBEDDINGS`."""
    ad = FeedAd.model_validate({"ad_id": ad_id, "title": f"Title of {ad_id}"} | fields)
    return Upsert(ad, EMBEDDINGS[embedding], embedded_by)


def make(record: Record, *changes: Any) -> list[Any]:
    """Make changes in one transaction; gives what is true after each."""
    with record.transaction() as transaction:
        return [transaction.make(change) for change in changes]


def contents(path: Path) -> dict[str, tuple[FeedAd, bytes]]:
    """Ads and embeddings of a record, by id."""
    reader = RecordReader(path)
    found = {state.ad_id: (state.ad, embedding_bytes(state)) for state in reader.ads()}
    reader.close()
    return found


def embedding_bytes(state: AdState) -> bytes:
    assert state.embedding is not None
    return state.embedding.tobytes()
