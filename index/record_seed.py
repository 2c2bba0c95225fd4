"""Begins a record with the ads of an index artifact."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from artifacts.manifest import IndexManifest
from artifacts.store import load_manifest, publish_file
from index.ad_document import read_campaign, write_fields
from index.ads import FIELD_NAMES, AdTable, load_array
from index.columns import EligibilityColumns
from index.errors import RecordError
from index.layout import ADS, CAMPAIGNS, ELIGIBILITY, VECTORS
from index.record import Record, Synchronous
from index.record_file import Origin, clear_errors, create, lock, seal
from index.record_reader import RecordReader

ROWS_A_STEP = 1_000
LOGGED_ROWS = 100_000

logger = logging.getLogger(__name__)

_Row = tuple[str, int, int, bytes, bytes, str | None]


def open_record(path: Path, index: Path, *, synchronous: Synchronous = "full") -> Record:
    """Open the record of the ads of an index; where there is none yet, one begins with the ads it has.

    After a kill or a crash all of it is read once, at about 1 GB a second.

    Args:
        path: of the record.
        index: the artifact.
        synchronous: see `Record`.

    Raises:
        RecordError: it cannot be used or written, or began with another index.
        ArtifactError: the artifact is damaged.
    """
    manifest = load_manifest(index, IndexManifest)
    origin = origin_of(manifest)
    if not path.exists():
        _begin(path, index, manifest, origin)
    was_closed = not path.with_name(f"{path.name}-wal").exists()
    with contextlib.ExitStack() as undo:
        record = Record(path, synchronous=synchronous)
        undo.callback(record.close)
        check_origin(path, record.origin, index, origin)
        if not was_closed:
            logger.info("%s: was not closed, so all of it is checked", path)
            with contextlib.closing(RecordReader(path)) as reader:
                reader.check()
        undo.pop_all()
    return record


def origin_of(manifest: IndexManifest) -> Origin:
    """What a record keeps of the index that it begins with."""
    return Origin(manifest.index_version, manifest.space.space_id, manifest.space.dim)


def check_origin(path: Path, found: Origin, index: Path, origin: Origin) -> None:
    """See that a record began with an index.

    Raises:
        RecordError: it began with another one.
    """
    if found != origin:
        raise RecordError(
            f"{path}: began with the index {found.index_version}, and {index} is {origin.index_version};"
            " give each index a record of its own"
        )


def _begin(path: Path, index: Path, manifest: IndexManifest, origin: Origin) -> None:
    """Write it aside, so that a kill leaves no record or a whole one."""
    temporary = path.with_name(f".{path.name}.beginning")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, lock(path))
            temporary.unlink(missing_ok=True)  # of a process that was killed
            undo.callback(temporary.unlink, missing_ok=True)
            with clear_errors(path), contextlib.closing(create(temporary, origin)) as db:
                db.execute("BEGIN")
                db.executemany("INSERT INTO ads VALUES (NULL, ?, ?, ?, ?, ?, ?)", _rows(index, manifest))
                db.executemany("INSERT INTO campaigns VALUES (?, 0, ?)", _campaigns(index, manifest))
                db.execute("COMMIT")
                seal(db)
            publish_file(temporary, path)
    except OSError as error:
        raise RecordError(f"{path}: cannot be written there ({error.strerror})") from error
    logger.info("%s: a record begins with the %d ads of %s", path, manifest.ad_count, origin.index_version)


def _rows(index: Path, manifest: IndexManifest) -> Iterator[_Row]:
    ads = AdTable.load(index / ADS, manifest.ad_count)
    columns = EligibilityColumns.load(index / ELIGIBILITY, manifest.ad_count)
    vectors = load_array(index / VECTORS, np.float32, ndim=2)
    for start in range(0, manifest.ad_count, ROWS_A_STEP):
        rows = np.arange(start, min(start + ROWS_A_STEP, manifest.ad_count))
        for document, embedding in zip(_documents(ads, columns, rows), vectors[rows], strict=True):
            yield (*document, embedding.tobytes(), manifest.model_version)
        if (rows[-1] + 1) % LOGGED_ROWS == 0:
            logger.info("a record begins: %d of %d ads", rows[-1] + 1, manifest.ad_count)


def _documents(
    ads: AdTable, columns: EligibilityColumns, rows: NDArray[np.int64]
) -> Iterator[tuple[str, int, int, bytes]]:
    """Id, sequence numbers and document of some rows; of the status an index knows only whether it is active."""
    schedules, keywords = list(columns.schedules), columns.negatives.texts()
    active, schedule, negatives = (columns.rows[name][rows] for name in ("active", "schedule", "negatives"))
    values = zip(*(ads.field(name, rows) for name in FIELD_NAMES), strict=True)
    for position, (json_id, fields) in enumerate(zip(ads.json_ids(rows), values, strict=True)):
        ad_id = orjson.loads(json_id)
        given = dict(zip(FIELD_NAMES, fields, strict=True)) | {"status": None if active[position] else "paused"}
        yield ad_id, 0, 0, write_fields(ad_id, given, schedules[schedule[position]], keywords[negatives[position]])


def _campaigns(index: Path, manifest: IndexManifest) -> Iterator[tuple[str, bytes]]:
    if manifest.campaigns:
        for document in (index / CAMPAIGNS).read_bytes().splitlines():
            yield read_campaign(document).campaign_id, document
