"""Releases in numbers: swaps, and outcomes and latency of each release that is loaded.

Every answered request counts here, so counting is adding to plain integers on the event loop; they become series when
somebody scrapes. A release that was dropped takes its series along, so their number is bounded by what is loaded.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from service.release import Release

SWAP_RESULTS = ("swapped", "unchanged", "rejected", "superseded", "rolled_back")
ABORT_REASONS = ("errors", "latency")
SWAP_EDGES_S = (0.01, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""From a release whose parts are loaded already to one of millions of ads."""


@dataclass(slots=True)
class ReleaseCounts:
    """What became of the requests that were given to releases of one name."""

    bins: list[int]
    """Answers by latency: at most each edge, and one for those beyond the last."""
    seconds: float = 0.0
    failed: dict[str, int] = field(default_factory=dict)
    """By outcome."""


class ReleaseMetrics(Collector):
    """Counts by the names of releases. Used on the event loop; scraped from anywhere."""

    def __init__(self, registry: CollectorRegistry, latency_edges_s: Sequence[float]) -> None:
        """Add the collectors.

        Args:
            registry: what is scraped.
            latency_edges_s: of the histogram, rising.
        """
        self._edges = tuple(latency_edges_s)
        self._counts: dict[str, ReleaseCounts] = {}
        self._roles: dict[str, Release] = {}
        swaps = Counter(
            "hlm_release_swaps", "Releases that were to be served, by what came of it.", ["result"], registry=registry
        )
        self._swaps = {result: swaps.labels(result) for result in SWAP_RESULTS}
        self._swap_seconds = Histogram(
            "hlm_release_swap_duration_seconds",
            "From the wish for a release to serving it, loading and verification included.",
            buckets=SWAP_EDGES_S,
            registry=registry,
        )
        aborts = Counter(
            "hlm_canary_aborts",
            "Canaries that lost their share, by the bound they broke.",
            ["reason"],
            registry=registry,
        )
        self._aborts = {reason: aborts.labels(reason) for reason in ABORT_REASONS}
        registry.register(self)

    def serving(self, roles: Mapping[str, Release], held: Iterable[str]) -> None:
        """What is served from now on.

        Args:
            roles: the release of each role that is filled.
            held: names of all that are loaded; what was counted of others is dropped.
        """
        self._roles = dict(roles)
        names = set(held)
        self._counts = {name: self._counts.get(name) or self._new_counts() for name in names}

    def answered(self, release: Release, seconds: float) -> None:
        """A request got its ads from it."""
        counts = self._counts.get(release.name)
        if counts is not None:  # dropped since the request was admitted
            counts.bins[bisect_left(self._edges, seconds)] += 1
            counts.seconds += seconds

    def failed(self, release: Release, outcome: str) -> None:
        """A request that was given to it got no ads."""
        counts = self._counts.get(release.name)
        if counts is not None:
            counts.failed[outcome] = counts.failed.get(outcome, 0) + 1

    def swapped(self, result: str, seconds: float) -> None:
        """A release was to be served; one of `SWAP_RESULTS`."""
        self._swaps[result].inc()
        if result == "swapped":
            self._swap_seconds.observe(seconds)

    def aborted(self, reason: str) -> None:
        """A canary lost its share; one of `ABORT_REASONS`."""
        self._aborts[reason].inc()

    def collect(self) -> Iterator[Metric]:
        """What a scrape sees."""
        info = InfoMetricFamily("hlm_release", "What is served, by role.", labels=["role"])
        requests = CounterMetricFamily(
            "hlm_release_requests", "Requests that a release was given, by outcome.", labels=["release", "outcome"]
        )
        latency = HistogramMetricFamily(
            "hlm_release_latency_seconds",
            "Time of an answered request from arrival to answer, by release.",
            labels=["release"],
        )
        for role, release in list(self._roles.items()):
            info.add_metric([role], _versions(release))
        for name, counts in list(self._counts.items()):
            bins = counts.bins.copy()
            for outcome, count in {"ok": sum(bins), **counts.failed}.items():
                requests.add_metric([name, outcome], count)
            cumulative = zip((*map(str, self._edges), "+Inf"), map(float, accumulate(bins)), strict=True)
            latency.add_metric([name], list(cumulative), sum_value=counts.seconds)
        yield from (info, requests, latency)

    def _new_counts(self) -> ReleaseCounts:
        return ReleaseCounts([0] * (len(self._edges) + 1))


def _versions(release: Release) -> dict[str, str]:
    return {
        "release": release.name,
        "model_version": release.model_version,
        "index_version": release.index_version,
        "space_id": release.ad_index.manifest.space.space_id,
    }
