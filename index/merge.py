"""Writes the next snapshot of a record, in a process of its own: `python -m index.merge RECORD SEED [--urgent]`.

A live index starts it beside itself, with a pipe as standard input: when that closes, because whoever started it has
ended or been killed, this ends too. It runs on cores that nobody else wants; with `--urgent` it gets a sixtieth of a
core that requests want as well. Whatever moment it is killed at, the snapshots that there are stay as they were.

Exit codes: 0 a snapshot was written, 1 it could not be, 2 wrong usage, 3 whoever started it is gone.
"""

import argparse
import contextlib
import logging
import os
import sys
import threading
from pathlib import Path

import numpy as np

from artifacts.errors import HlmError
from artifacts.manifest import IndexManifest
from artifacts.store import ArtifactError, load_manifest
from index.ads import load_array
from index.compaction import write_base
from index.generation import Generation, empty_base
from index.layout import QUERIES
from index.queries import QuerySample
from index.record_reader import RecordReader
from index.record_seed import check_origin, origin_of
from index.snapshots import Snapshots

ALONE = 3
NICE = 19

logger = logging.getLogger(__name__)


def merge(record: Path, seed: Path, *, rebuild: bool = False, threads: int = 1) -> IndexManifest:
    """Write a snapshot with all that the record says now.

    Args:
        record: the record.
        seed: the index artifact that it began with.
        rebuild: read every ad from the record and link every graph anew, whatever the snapshots say.
        threads: how many link graphs.

    Raises:
        RecordError: the record cannot be read, or began with another index.
        ArtifactError: the index has no manifest.
        MergeBusyError: another process writes a snapshot of this record.
        OSError: the disk refuses.
    """
    snapshots = Snapshots(record)
    with snapshots.writing(), contextlib.closing(RecordReader(record)) as reader:
        check_origin(record, reader.origin, seed, origin_of(load_manifest(seed, IndexManifest)))
        snapshots.drop_strange(reader.forgotten, reader.sequence)  # or they would be kept instead of the new one
        with reader.standing_still():
            generation, source = _generation(snapshots, seed, reader, rebuild=rebuild)
        return write_base(generation, snapshots.path_of(generation.sequence), _queries(source), threads=threads)


def _generation(snapshots: Snapshots, seed: Path, reader: RecordReader, *, rebuild: bool) -> tuple[Generation, Path]:
    """What the record says, and the artifact that it was read from as far as that went."""
    if not rebuild:
        try:
            base, source = snapshots.open_newest(seed)
            generation = Generation(base)
            generation.replay(reader.changes_since(generation.sequence))
        except ArtifactError as error:
            logger.error("all is read from the record: %s", error)  # noqa: TRY400 - it says all
        else:
            return generation, source
    generation = Generation(empty_base(load_manifest(seed, IndexManifest)))
    generation.fill([*reader.campaigns(), *reader.ads()], reader.sequence)
    return generation, seed


def _queries(source: Path) -> QuerySample | None:
    """The queries that the recall of an artifact was measured with."""
    path = source / QUERIES
    if not path.exists():
        return None
    embeddings = np.array(load_array(path, np.float32, ndim=2))
    return QuerySample(embeddings, load_manifest(source, IndexManifest).recall.query_source)


def main() -> None:
    """Merge at the least priority there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", type=Path)
    parser.add_argument("seed", type=Path)
    parser.add_argument("--rebuild", action="store_true")
    parser.add_argument("--urgent", action="store_true")
    args = parser.parse_args()
    logging.basicConfig(format="%(message)s")
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _give_way(urgent=args.urgent)
    try:
        manifest = merge(args.record, args.seed, rebuild=args.rebuild)
    except (HlmError, OSError) as error:
        sys.exit(f"error: {error}")
    sys.stdout.write(f"{manifest.index_version}: {manifest.ad_count:,} ads, changes up to {manifest.sequence:,}\n")


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # past Python's buffer, whose lock would be held when this ends before
    os._exit(ALONE)


def _give_way(*, urgent: bool) -> None:
    """Let everything else go first.

    A nice process keeps its core for up to 3 ms when a request comes, an idle one gives it up at once; but it may never
    end where no core is idle.
    """
    with contextlib.suppress(OSError):  # a sandbox may say no
        os.nice(NICE)
        if not urgent:
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


if __name__ == "__main__":
    main()
