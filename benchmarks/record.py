"""What it costs to make changes durable: the record and its writer, without HTTP and without an index in memory.

`make bench-record`. Callers pause and resume ads, each waiting for its answer; both kinds of `record.synchronous`.
Read it as: one caller shows how long the disk takes, many show what shared commits make of that.
"""

import argparse
import json
import random
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
from rich.table import Table

from benchmarks.tables import wide_console
from index.ad_document import write_fields
from index.ad_schedule import ALWAYS
from index.changes import AdPatch, PatchAd, State
from index.record import Record, Synchronous
from index.record_file import Origin, create, seal
from index.writer import AdWriter

DIM = 384
CALLERS = (1, 8, 64)
DESCRIPTION = "cordless and brushless, with two batteries, a charger and a bag " * 8


class Nowhere:
    """Makes nothing true."""

    def apply(self, states: Sequence[State]) -> None:
        """Do nothing."""


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ads", type=int, default=100_000, help="in the record")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each run")
    parser.add_argument("--directory", type=Path, help="on the disk to measure; by default the system's temporary one")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.directory) as directory:
        path = Path(directory) / "record.db"
        begin_s = begin(path, given.ads)
        figures: dict[str, float] = {
            "ads": given.ads,
            "ads_begun_per_s": given.ads / begin_s,
            "bytes_per_ad": path.stat().st_size / given.ads,
        }
        table = Table("synchronous", "callers", "changes/s", "p50 ms", "p99 ms", title=f"Flips of {given.ads:,} ads")
        for synchronous in get_args(Synchronous):
            for callers in CALLERS:
                times = np.array(flips(path, synchronous, callers, given.ads, given.seconds))
                rate, (p50, p99) = len(times) / given.seconds, np.percentile(times, [50, 99]) * 1e3
                table.add_row(synchronous, str(callers), f"{rate:,.0f}", f"{p50:.2f}", f"{p99:.2f}")
                figures |= {f"{synchronous}_{callers}_per_s": rate, f"{synchronous}_{callers}_p99_ms": float(p99)}
    wide_console().print(table)
    print(json.dumps({name: round(value, 2) for name, value in figures.items()}))


def begin(path: Path, ad_count: int) -> float:
    """Write a record of some ads; gives the seconds that it took."""
    started = time.perf_counter()
    db = create(path, Origin("benchmark", "benchmark", DIM))
    db.execute("BEGIN")
    db.executemany("INSERT INTO ads VALUES (NULL, ?, 0, 0, ?, ?, NULL)", ads(ad_count))
    db.execute("COMMIT")
    seal(db)
    return time.perf_counter() - started


def ads(count: int) -> Iterator[tuple[str, bytes, bytes]]:
    """Id, document and embedding of made-up ads."""
    vectors = np.random.default_rng(0).standard_normal((1_000, DIM)).astype(np.float32)
    for number in range(count):
        ad_id = f"ad-{number}"
        fields = {"title": f"Drill number {number}", "description": DESCRIPTION, "bid": 0.4, "market": "us"}
        yield ad_id, write_fields(ad_id, fields | {"status": None}, ALWAYS, ()), vectors[number % 1_000].tobytes()


def flips(path: Path, synchronous: Synchronous, callers: int, ad_count: int, seconds: float) -> list[float]:
    """Have callers change ads for some time; gives how long each change took, in seconds."""
    writer = AdWriter(Record(path, synchronous=synchronous), Nowhere())
    ends = time.perf_counter() + seconds
    taken: list[float] = []

    def call(seed: int) -> None:
        chance = random.Random(seed)
        while (started := time.perf_counter()) < ends:
            # Never the same twice, or there would be nothing to record.
            change = PatchAd(f"ad-{chance.randrange(ad_count)}", AdPatch(bid=chance.random()))
            writer.submit([change]).result()
            taken.append(time.perf_counter() - started)

    threads = [threading.Thread(target=call, args=(seed,)) for seed in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    return taken


if __name__ == "__main__":
    main()
