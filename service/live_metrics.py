"""Live indexes in numbers: what has changed since the graphs were built, and how building them anew went."""

import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from index.live import LiveStats

RESULTS = ("merged", "failed")
MERGE_EDGES_S = (0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0)
"""From a few thousand ads to millions."""


class LiveMetrics(Collector):
    """Counts from any thread; the gauges are those of the stable release, and missing where it has no record."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Add the collectors."""
        self._stats: Callable[[], LiveStats | None] = lambda: None
        merges = Counter("hlm_index_merges", "Graphs built anew, by what came of it.", ["result"], registry=registry)
        self._merges = {result: merges.labels(result) for result in RESULTS}
        self._merge_seconds = Histogram(
            "hlm_index_merge_duration_seconds",
            "From the decision to build the graphs anew to searching them.",
            buckets=MERGE_EDGES_S,
            registry=registry,
        )
        registry.register(self)

    def observe(self, stats: Callable[[], LiveStats | None]) -> None:
        """Read the gauges from here when they are scraped."""
        self._stats = stats

    def merged(self, result: str, seconds: float) -> None:
        """A merge ended; one of `RESULTS`."""
        self._merges[result].inc()
        if result == "merged":
            self._merge_seconds.observe(seconds)

    def collect(self) -> Iterator[Metric]:
        """What a scrape sees."""
        stats = self._stats()
        for name, (meaning, read) in _GAUGES.items():
            gauge = GaugeMetricFamily(name, meaning)
            if stats is not None:
                gauge.add_metric([], read(stats))
            yield gauge


_GAUGES: dict[str, tuple[str, Callable[[LiveStats], float]]] = {
    "hlm_index_sequence": ("Number of the last change that is searched.", lambda stats: stats.sequence),
    "hlm_index_later_ads": (
        "Ads that are scanned beside the graphs; each version of one counts.",
        lambda stats: stats.later_ads,
    ),
    "hlm_index_gone_ratio": ("Share of the rows in memory whose ads are gone.", lambda stats: stats.gone_share),
    "hlm_index_snapshot_age_seconds": ("How old the graphs are.", lambda stats: time.time() - stats.snapshot_at),
}
