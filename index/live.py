"""An index that changes while it is searched: one generation after another, each with its changes in memory."""

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from artifacts.manifest import IndexManifest
from artifacts.store import load_manifest
from index.ad_index import IndexStats, SearchHits
from index.changes import State
from index.filters import Wanted
from index.generation import Generation
from index.load import load_index
from index.record_reader import RecordReader
from index.snapshots import Snapshots

MERGE_LATER_ADS = 1_000
"""Ads beside the graphs from which on they are linked into them; as many of dim 384 fit into a core's cache."""
URGENT_LATER_ADS = 8 * MERGE_LATER_ADS
"""Ads beside the graphs from which on linking them may cost requests more than scanning them does."""
MERGE_GONE_SHARE = 0.2
MERGE_AFTER_S = 3_600.0
"""Changes are in a snapshot after so long at the latest, so that a start has few of them to make again."""


@dataclass(frozen=True, slots=True)
class LiveStats:
    """What has changed since the graphs were built."""

    sequence: int
    """Of the last change that is searched."""
    snapshot_sequence: int
    """Of the last change that is in the graphs."""
    snapshot_at: float
    """When they were built, in seconds since 1970."""
    later_ads: int
    """Ads that are scanned, since they came after the graphs; each version of one counts."""
    gone_share: float
    """Of all rows in memory, those of ads that were deleted or written anew since."""

    @property
    def is_urgent(self) -> bool:
        """Whether a merge must not wait for idle cores."""
        return self.later_ads >= URGENT_LATER_ADS

    def needs_merge(self, now: float) -> bool:
        """Whether it is time to build the graphs anew; `now` in seconds since 1970."""
        return (
            self.later_ads >= MERGE_LATER_ADS
            or self.gone_share > MERGE_GONE_SHARE
            or (self.sequence > self.snapshot_sequence and now - self.snapshot_at >= MERGE_AFTER_S)
        )


class LiveIndex:
    """An `AdIndex` that follows a record. One thread applies changes, another may swap the base, any number search."""

    def __init__(self, record: Path, seed: Path, generation: Generation) -> None:
        """Take what is searched first; `open` is the usual way in.

        Args:
            record: the record.
            seed: the index artifact that it began with.
            generation: what holds as of some change of it.
        """
        self.record = record
        self.seed = seed
        self.seed_manifest = load_manifest(seed, IndexManifest)
        self.snapshots = Snapshots(record)
        self._generation = generation
        self._changing = threading.Lock()

    @classmethod
    def open(cls, record: Path, seed: Path, *, threads: int = 1) -> "LiveIndex":
        """Open the newest snapshot of a record, or the index that it began with, and make the changes since.

        Args:
            record: the record.
            seed: that index.
            threads: how many compare files with their hashes.

        Raises:
            ArtifactError: neither a snapshot nor the index is whole.
            RecordError: the record cannot be read.
        """
        snapshots = Snapshots(record)
        with contextlib.closing(RecordReader(record)) as reader:
            snapshots.drop_strange(reader.forgotten, reader.sequence)
            base, _ = snapshots.open_newest(seed, threads=threads)
            generation = Generation(base)
            generation.replay(reader.changes_since(generation.sequence))
        return cls(record, seed, generation)

    @property
    def manifest(self) -> IndexManifest:
        """Of the graphs that are searched."""
        return self._generation.base.manifest

    def search(self, embeddings: NDArray[np.float32], wanted: Sequence[Wanted]) -> list[SearchHits]:
        """Find the best ads that each query may get: embeddings (n, dim), and what each of the n asks for."""
        return self._generation.index.search(embeddings, wanted)

    def narrows(self, top_k: int, effort: float) -> bool:
        """Whether a search for so many ads looks at less with this effort than with all."""
        return self._generation.index.narrows(top_k, effort)

    def still_eligible(self, hits: SearchHits, wanted: Wanted) -> SearchHits:
        """Those that may be shown now, also where they were found before the graphs were swapped."""
        generation = self._generation
        return generation.index.still_eligible(generation.known(hits), wanted)

    def exact_search(self, embeddings: NDArray[np.float32], wanted: Sequence[Wanted]) -> list[SearchHits]:
        """As `search`, by comparing with every ad that a query may get."""
        return self._generation.index.exact_search(embeddings, wanted)

    def stats(self) -> IndexStats:
        """Counts and sizes now."""
        return self._generation.stats()

    def live_stats(self) -> LiveStats:
        """What has changed since the graphs were built."""
        generation = self._generation
        manifest = generation.base.manifest
        return LiveStats(
            sequence=generation.sequence,
            snapshot_sequence=manifest.sequence,
            snapshot_at=manifest.created_at.timestamp(),
            later_ads=generation.later_count,
            gone_share=generation.gone_share,
        )

    def apply(self, states: Sequence[State]) -> None:
        """Make durable changes searchable, in their order; those that are already change nothing."""
        with self._changing:
            self._generation.apply(states)

    def adopt(self, snapshot: Path, *, verify: bool = True) -> None:
        """Load a snapshot beside what is searched, make the changes since, and search it instead.

        Args:
            snapshot: of this record.
            verify: compare its files with their hashes.

        Raises:
            ArtifactError: it is not whole.
            RecordError: the record cannot be read.
        """
        generation = Generation(load_index(snapshot, verify=verify))
        with contextlib.closing(RecordReader(self.record)) as reader:
            generation.replay(reader.changes_since(generation.sequence))  # nearly all, while others go on
            with self._changing:
                generation.replay(reader.changes_since(generation.sequence))
                self._generation = generation
