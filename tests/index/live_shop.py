"""A live index over a record of its own, changed and searched without a service."""

from pathlib import Path

from artifacts.manifest import IndexManifest
from artifacts.store import load_manifest
from index.changes import Change
from index.compaction import write_base
from index.generation import Generation, empty_base
from index.live import LiveIndex
from index.merge import merge
from index.record import Record
from index.record_file import create, seal
from index.record_seed import origin_of
from tests.index.live_oracle import BLANK, WANTED, Oracle, assert_answers, queries

EMBEDDINGS = queries()


class Shop:
    """A record, a live index over it, and what both must say."""

    def __init__(self, directory: Path) -> None:
        self.seed, self.path = directory / "seed", directory / "shop.db"
        write_base(Generation(empty_base(BLANK)), self.seed, None, threads=1)
        seal(create(self.path, origin_of(load_manifest(self.seed, IndexManifest))))
        self.oracle = Oracle()
        self.record = Record(self.path)
        self.live = LiveIndex.open(self.path, self.seed)

    def make(self, change: Change) -> None:
        self.oracle.make(change)
        with self.record.transaction() as transaction:
            state = transaction.make(change)
        if state is not None:
            self.live.apply([state])

    def merge(self, *, rebuild: bool = False) -> None:
        manifest = merge(self.path, self.seed, rebuild=rebuild)
        assert manifest.ad_count == len(self.oracle.ads)

    def restart(self) -> None:
        self.record.close()
        self.record = Record(self.path)
        self.live = LiveIndex.open(self.path, self.seed)

    def check(self) -> None:
        assert_answers(self.live.search(EMBEDDINGS, WANTED), self.oracle, EMBEDDINGS)
        assert_answers(self.live.exact_search(EMBEDDINGS, WANTED), self.oracle, EMBEDDINGS)
        assert self.live.stats().ad_count == len(self.oracle.ads)
