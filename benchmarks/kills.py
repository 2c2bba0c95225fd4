"""A live index killed at random moments of starting, writing, merging, snapshotting and swapping.

What it measures: changes that were acknowledged and are not there after the next start, starts that fail, and snapshots
that were found to be damaged, over many kills of one shop that lives on.
How: each life is a process that opens record and snapshots, changes ads as fast as it can, and all the while writes
snapshots and swaps to them; it says what it asked for and what was acknowledged, and is killed after a random time.
Then the index is opened as a service would open it. Each ad must be as its last acknowledged change says, or as one
that was asked for after that. A kill is no power loss: what the kernel has taken it writes.
"""

import argparse
import contextlib
import json
import logging
import os
import random
import select
import signal
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np
from rich.table import Table

import index.compaction
import index.segment
import terminal
from artifacts.errors import HlmError
from artifacts.manifest import FeedReport, HnswParams, IndexManifest, RecallReport
from artifacts.space import EmbeddingSpace
from benchmarks.tables import wide_console
from index.changes import AdPatch, Change, Delete, PatchAd, Upsert
from index.compaction import write_base
from index.feed import FeedAd
from index.filters import Wanted
from index.generation import Generation, empty_base
from index.live import LiveIndex
from index.merge import merge
from index.record_seed import open_record
from index.writer import AdWriter

DIM = 32
ADS = 150
GRAPH_FROM = 40
"""Ads of a segment that gets a graph; fewer than in service, so that a small shop has some."""
LONGEST_LIFE_S = 0.8
MOST_TOGETHER = 8

Value = float | None
"""The bid that a change gave an ad, told apart from all others; None where it deleted it."""


@dataclass(slots=True)
class Account:
    """What must be there."""

    held: dict[str, Value] = field(default_factory=dict)
    """By ad, what its last acknowledged change says."""
    asked: dict[str, list[Value]] = field(default_factory=dict)
    """By ad, what was asked for since."""
    acknowledged: int = 0
    lost: int = 0

    def hear(self, line: str) -> None:
        """Take a line of a life: `? ad value` or `! ad value`."""
        mark, ad_id, written = line.split(" ")
        value = None if written == "None" else float(written)
        if mark == "?":
            self.asked.setdefault(ad_id, []).append(value)
        else:
            self.held[ad_id] = value
            self.asked[ad_id] = self.asked[ad_id][self.asked[ad_id].index(value) + 1 :]
            self.acknowledged += 1

    def compare(self, found: dict[str, float]) -> None:
        """Count what is lost, and go on from what was found."""
        for ad_id in self.held.keys() | self.asked.keys() | found.keys():
            allowed = [self.held.get(ad_id), *self.asked.get(ad_id, ())]
            self.lost += found.get(ad_id) not in allowed
        self.held, self.asked = dict(found), {}


def main() -> None:
    """Measure, print the card, and the figures as JSON on the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kills-") as directory:
        account, failed_starts, damaged = survive(Path(directory), args.kills, args.seed)
    table = Table("kills", "acknowledged", "lost", "failed starts", "damaged snapshots")
    figures = (args.kills, account.acknowledged, account.lost, failed_starts, damaged)
    table.add_row(*(f"{figure:,}" for figure in figures))
    wide_console().print(table)
    print(json.dumps({"kills": args.kills, "lost": account.lost + failed_starts + damaged}))


def survive(directory: Path, kills: int, seed: int) -> tuple[Account, int, int]:
    """The account after so many kills, the starts that failed, and the snapshots that were damaged."""
    terminal.console.quiet = True
    for module in (index.segment, index.compaction):
        vars(module)["EXACT_BELOW"] = GRAPH_FROM
    shop = _new_shop(directory)
    chance, account, failed_starts = random.Random(seed), Account(), 0
    complaints = _Complaints()
    logging.getLogger("index").addHandler(complaints)
    for life in range(kills):
        for line in _heard_until_killed(shop, life, chance.uniform(0, LONGEST_LIFE_S)):
            account.hear(line)
        try:
            account.compare(_found(shop))
        except HlmError as error:
            print(f"start {life} failed: {error}")
            failed_starts += 1
    return account, failed_starts, complaints.count


class _Complaints(logging.Handler):
    """Counts what is logged as an error."""

    count = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record."""
        self.count += record.levelno >= logging.ERROR


@dataclass(frozen=True, slots=True)
class _Shop:
    record: Path
    seed: Path


def _new_shop(directory: Path) -> _Shop:
    shop = _Shop(directory / "shop.db", directory / "seed")
    manifest = IndexManifest(
        fingerprint="",
        space=EmbeddingSpace(teacher="random", revision="1", dim=DIM, pooling="none", normalized=True),
        files={},
        tools={},
        index_version="",
        model_version=None,
        ad_count=0,
        campaigns=0,
        dim=DIM,
        backend="hnswlib",
        hnsw=HnswParams(),
        segments=[],
        recall=RecallReport(k=10, target=0.9, ann_recall=1.0, query_count=0, query_source="none"),
        feed=FeedReport(name="shop", sha256="", lines=0, ads=0, not_active=0, skipped={}),
    )
    write_base(Generation(empty_base(manifest)), shop.seed, None, threads=1)
    open_record(shop.record, shop.seed).close()
    return shop


def _heard_until_killed(shop: _Shop, life: int, seconds: float) -> list[str]:
    """Let a process live for so long; gives the lines it has written."""
    read_end, write_end = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(read_end)
        _live(shop, life, write_end)
    os.close(write_end)
    ends, heard = time.monotonic() + seconds, b""
    while (left := ends - time.monotonic()) > 0 and select.select([read_end], [], [], left)[0]:
        heard += os.read(read_end, 1 << 16)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    while more := os.read(read_end, 1 << 16):
        heard += more
    os.close(read_end)
    return heard.decode().split("\n")[:-1]


def _live(shop: _Shop, life: int, output: int) -> NoReturn:
    """Change ads without end; a life that ends by itself ends the check."""
    try:
        record = open_record(shop.record, shop.seed)
        live = LiveIndex.open(shop.record, shop.seed)
        writer = AdWriter(record, live)
        threading.Thread(target=_merge_without_end, args=(shop, live), daemon=True).start()
        chance, number = random.Random(life), 0
        while True:
            submitted = []
            for ad_id in chance.sample(range(ADS), chance.randint(1, MOST_TOGETHER)):
                number += 1
                change, value = _change(chance, str(ad_id), float(f"{life}.{number:07d}1"))
                os.write(output, f"? {ad_id} {value}\n".encode())
                submitted.append((ad_id, value, writer.submit([change])))
            for ad_id, value, future in submitted:
                if not future.result().unknown:
                    os.write(output, f"! {ad_id} {value}\n".encode())
    finally:
        os._exit(1)


def _change(chance: random.Random, ad_id: str, bid: float) -> tuple[Change, Value]:
    kind = chance.choices(("upsert", "patch", "delete"), (6, 3, 1))[0]
    if kind == "delete":
        return Delete(ad_id), None
    if kind == "patch":
        return PatchAd(ad_id, AdPatch(bid=bid)), bid
    ad = FeedAd(ad_id=ad_id, title=f"ad {ad_id}", bid=bid)
    return Upsert(ad, _vector(chance.randrange(1 << 30))), bid


def _vector(seed: int) -> np.ndarray:
    vector = np.random.default_rng(seed).standard_normal(DIM).astype(np.float32)
    scaled: np.ndarray = vector / np.linalg.norm(vector)
    return scaled


def _merge_without_end(shop: _Shop, live: LiveIndex) -> None:
    while True:
        merge(shop.record, shop.seed)
        live.adopt(live.snapshots.newest_first()[0])


def _found(shop: _Shop) -> dict[str, float]:
    """The ads of an index that is opened now, and their bids."""
    with contextlib.closing(open_record(shop.record, shop.seed)):
        live = LiveIndex.open(shop.record, shop.seed)
        [hits] = live.exact_search(_vector(0)[np.newaxis], [Wanted(top_k=2 * ADS)])
        return dict(zip(hits.ad_ids, hits.ads.field("bid", hits.rows), strict=True))


if __name__ == "__main__":
    main()
