"""A base that was built as a whole, and what has changed since: searched as one index.

    base    graphs, vectors, texts: an artifact, never changed
    later   ads written since, in rows after those of the base: scanned exactly, segment by segment
    columns who may see which row: changed in place, also for rows of the base

An ad that is written anew, or deleted, leaves its old row behind, which nobody gets to see any more.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from artifacts.manifest import IndexManifest
from artifacts.store import ArtifactError
from index.ad_index import IndexStats, SearchHits
from index.ad_lookup import AdLookup
from index.ads import AdTable, AdTableBuilder
from index.changes import AdState, CampaignState, State
from index.columns import EligibilityColumns
from index.delta import GrowingScan, LiveAds
from index.feed import FeedAd
from index.filters import Filters
from index.load import FrozenIndex
from index.routing import Routing, SegmentKey
from index.segment import Segment
from index.vectors import shorten

_STATES_AT_ONCE = 1_000


class LiveRouting(Routing[Segment]):
    """Finds the segments of a request in the base, and those of the later ads as they are now."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        """Start with the segments of the base."""
        super().__init__(segments)
        self._later: Routing[GrowingScan] = Routing([])
        self._scans: dict[SegmentKey, GrowingScan] = {}

    @property
    def later(self) -> list[GrowingScan]:
        """The segments of the later ads."""
        return self._later.segments

    def route(self, filters: Filters) -> list[Segment]:
        """The segments that hold what a request may get."""
        later = [Segment(scan.key, *scan.taken()) for scan in self._later.route(filters)]
        return [*super().route(filters), *later]

    def scan_for(self, key: SegmentKey, dim: int) -> GrowingScan:
        """Where later ads of a segment go."""
        scan = self._scans.get(key)
        if scan is None:
            scan = self._scans[key] = GrowingScan(key, dim)
            self._later = Routing(list(self._scans.values()))
        return scan


class Generation:
    """One base and its changes. One thread applies them, any number search."""

    def __init__(self, base: FrozenIndex) -> None:
        """Start without changes."""
        assert isinstance(base.ads, AdTable)  # an artifact's
        self.base = base
        self.sequence = base.manifest.sequence
        """Of the last change that is in it."""
        self.ads = LiveAds(base.ads)
        self.columns = base.eligibility
        self.routing = LiveRouting(base.routing.segments)
        self.index = replace(base, ads=self.ads, routing=self.routing)
        """What is searched."""
        self._lookup = AdLookup(base.ads.ids)
        self._later: dict[str, int] = {}
        """Rows of the later ads."""
        self._places: list[tuple[GrowingScan, int]] = []
        """Where the vector of each later row is, by its distance from the base."""
        self._gone: set[int] = set()

    @property
    def later_count(self) -> int:
        """Ads that are scanned because they came after the base; those that were replaced since are scanned too."""
        return len(self._places)

    @property
    def gone_share(self) -> float:
        """Of all rows, those that nobody gets to see any more."""
        return len(self._gone) / max(1, len(self.ads))

    def stats(self) -> IndexStats:
        """Counts and sizes; the later ads' vectors are memory too."""
        base = self.index.stats()
        later_bytes = sum(vectors.nbytes for _, vectors in (scan.taken() for scan in self.routing.later))
        return replace(base, ad_count=base.ad_count - len(self._gone), memory_bytes=base.memory_bytes + later_bytes)

    def known(self, hits: SearchHits) -> SearchHits:
        """Hits of another generation of the same index, as far as their ads are in this one."""
        if hits.ads is self.ads:
            return hits
        ad_ids = hits.ad_ids
        in_base = zip(ad_ids, self._lookup.find(ad_ids), strict=True) if ad_ids else ()
        rows = [self._later.get(ad_id, row) for ad_id, row in in_base]
        there = [position for position, row in enumerate(rows) if row is not None]
        found = np.array([rows[position] for position in there], dtype=np.int64)
        return replace(hits, rows=found, scores=hits.scores[there], ads=self.ads)

    def replay(self, states: Iterable[State]) -> None:
        """Make states true that are read one after another; as `apply` otherwise."""
        left = iter(states)
        while some := list(islice(left, _STATES_AT_ONCE)):
            self.apply(some)

    def apply(self, states: Sequence[State]) -> None:
        """Make states true, in their order; those that are in it already change nothing.

        Raises:
            ArtifactError: the base lacks an ad that the record says it has.
        """
        fresh = [state for state in states if state.sequence > self.sequence]
        if fresh:
            self.fill(fresh, fresh[-1].sequence)

    def fill(self, states: Sequence[State], sequence: int) -> None:
        """Make states true, whatever their numbers; then it is as of some sequence number."""
        in_base = self._rows_in_base(states)
        for state in states:
            if isinstance(state, CampaignState):
                self.columns.set_campaign(state.campaign)
            else:
                self._apply_ad(state, self._later.get(state.ad_id, in_base[state.ad_id]))
        self.sequence = sequence

    def kept_rows(self) -> NDArray[np.int64]:
        """Rows of the ads that there are, rising."""
        kept = np.ones(len(self.ads), dtype=np.bool_)
        kept[list(self._gone)] = False
        return np.flatnonzero(kept)

    def later_vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vectors (n, dim) of ads that are not in the base."""
        vectors = np.empty((len(rows), self.base.manifest.dim), dtype=np.float32)
        for number, row in enumerate(rows.tolist()):
            scan, position = self._places[row - len(self.base.ads)]
            vectors[number] = scan.taken()[1][position]
        return vectors

    def _rows_in_base(self, states: Iterable[State]) -> dict[str, int | None]:
        ad_ids = [state.ad_id for state in states if isinstance(state, AdState)]
        return dict(zip(ad_ids, self._lookup.find(ad_ids), strict=True)) if ad_ids else {}

    def _apply_ad(self, state: AdState, row: int | None) -> None:
        if row in self._gone:
            row = None
        if state.ad is None or state.embedding is not None:
            if row is not None:
                self._retire(row, state.ad_id)
            if state.ad is not None and state.embedding is not None:
                self._append(state.ad, state.embedding)
        elif row is None:
            raise ArtifactError(f"{self.base.manifest.index_version}: lacks ad {state.ad_id!r}, which its record has")
        else:
            self.columns.set_active(row, state.ad.is_active)
            self.columns.set_bid(row, state.ad.bid)
            self.ads.set_bid(row, state.ad.bid)

    def _retire(self, row: int, ad_id: str) -> None:
        self.columns.retire(row)
        self._gone.add(row)
        self._later.pop(ad_id, None)

    def _append(self, ad: FeedAd, embedding: NDArray[np.float32]) -> None:
        """Enter an ad; it can be found once its vector is in, which comes last."""
        row = self.ads.append(ad.ad_id, ad.columns())
        entered = self.columns.append(ad)
        assert row == entered
        [vector] = shorten(embedding[np.newaxis], self.base.manifest.dim)
        scans = [self.routing.scan_for(key, len(vector)) for key in ad.segment_keys]
        positions = [scan.append(row, vector) for scan in scans]
        self._places.append((scans[0], positions[0]))
        self._later[ad.ad_id] = row


def empty_base(like: IndexManifest) -> FrozenIndex:
    """One without ads, for those of an embedding space and with graphs as another has them."""
    manifest = like.model_copy(update={"ad_count": 0, "segments": [], "files": {}, "sequence": 0})
    vectors = np.empty((0, like.dim), dtype=np.float32)
    return FrozenIndex(manifest, AdTableBuilder().build(), vectors, EligibilityColumns(), Routing([]))
