"""Every Prometheus collector of the service, in one object with its own registry."""

import contextlib
import platform
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client import Info as InfoMetric

from artifacts.store import tool_versions
from service.ad_metrics import AdMetrics
from service.admission import StepName
from service.answer import StageTimes
from service.cost import BatchCost
from service.front_metrics import FrontMetrics
from service.gpu_metrics import GpuMetrics
from service.lane_metrics import LaneMetrics
from service.live_metrics import LiveMetrics
from service.release_metrics import ReleaseMetrics

LATENCY_EDGES_S = (
    *(0.00025, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.0075),
    *(0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0),
)
"""From a cached answer to a hopeless one, closest where the p50 and p99 of short queries fall."""

OBSERVED_TOGETHER = 32
"""To observe costs a third where its code is in the processor's cache: so answers wait for company, or for a scrape."""
BATCH_SIZE_EDGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
BATCH_TOKENS_EDGES = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
PADDING_EDGES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75)
WORKER_STATES = ("idle", "busy", "dead")
OUTCOMES = (
    *("ok", "invalid_json", "slow_body", "body_too_large", "invalid_request", "not_ready"),
    *("overloaded", "deadline_exceeded", "cancelled", "internal_error"),
)


STAGES = tuple(field.name for field in fields(StageTimes))


disable_created_metrics()  # type: ignore[no-untyped-call]  # a creation time a series says nothing here and doubles the page


class Metrics:
    """Counts and durations; the label values are fixed, so that no query can add a series."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._pending: deque[StageTimes | BatchCost] = deque()
        self.registry.register(_First(self._observe_pending))
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        requests = Counter("hlm_requests", "Requests to /retrieve, by outcome.", ["outcome"], registry=self.registry)
        self._outcomes = {outcome: requests.labels(outcome) for outcome in OUTCOMES}
        stages = Histogram(
            "hlm_stage_duration_seconds",
            "Time of an answered request in each stage; encode and search are those of its whole batch.",
            ["stage"],
            buckets=LATENCY_EDGES_S,
            registry=self.registry,
        )
        self._stages = {stage: stages.labels(stage) for stage in STAGES}
        self._incomplete = Counter(
            "hlm_incomplete_answers", "Answers with fewer ads than were asked for.", registry=self.registry
        )
        degraded = Counter("hlm_degraded_answers", "Answers made cheaper, by step.", ["step"], registry=self.registry)
        self._degraded = {step: degraded.labels(step) for step in get_args(StepName)}
        lookups = Counter("hlm_cache_lookups", "Lookups in a cache.", ["cache", "result"], registry=self.registry)
        self._lookups = {
            (cache, hit): lookups.labels(cache, "hit" if hit else "miss")
            for cache in ("embedding", "result")
            for hit in (True, False)
        }
        self._cache_bytes = Gauge("hlm_cache_bytes", "Held by the embedding cache.", registry=self.registry)
        self._cache_entries = Gauge("hlm_cache_entries", "Embeddings in the embedding cache.", registry=self.registry)
        self._batch_size = Histogram(
            "hlm_batch_size", "Queries in a batch.", buckets=BATCH_SIZE_EDGES, registry=self.registry
        )
        self._batch_tokens = Histogram(
            "hlm_batch_tokens",
            "Tokens in a batch, padding included.",
            buckets=BATCH_TOKENS_EDGES,
            registry=self.registry,
        )
        self._batch_padding = Histogram(
            "hlm_batch_padding_ratio",
            "Share of a batch's tokens that is padding.",
            buckets=PADDING_EDGES,
            registry=self.registry,
        )
        self._queued = Gauge("hlm_queued_requests", "Queries waiting for a worker.", registry=self.registry)
        self._running = Gauge("hlm_running_batches", "Batches that workers are running.", registry=self.registry)
        self._ready = Gauge("hlm_ready", "1 while /health/ready says yes.", registry=self.registry)
        self._ads = Gauge("hlm_index_ads", "Ads that can be found.", registry=self.registry)
        self.lane = LaneMetrics(self.registry, OUTCOMES)
        self.releases = ReleaseMetrics(self.registry, LATENCY_EDGES_S)
        self.ads = AdMetrics(self.registry)
        self.live = LiveMetrics(self.registry)
        self.gpu = GpuMetrics(self.registry)
        self.fronts = FrontMetrics(self.registry)
        build = InfoMetric("hlm_build", "What serves.", registry=self.registry)
        build.info({"python": platform.python_version(), **_label_names(tool_versions(SERVING_TOOLS))})

        self._watch_collectors()

    def _watch_collectors(self) -> None:
        records = Counter(
            "hlm_request_log_records",
            "Sampled requests that were written to the request log, dropped because its queue was full, or failed.",
            ["result"],
            registry=self.registry,
        )
        traces = Counter(
            "hlm_traces", "Requests that were traced, or not because of the limit.", ["result"], registry=self.registry
        )
        self._traced = {result: traces.labels(result) for result in ("recorded", "limited")}
        self._loop_lag = Histogram(
            "hlm_event_loop_lag_seconds",
            "How late the event loop comes to what is due, ten times a second.",
            buckets=LATENCY_EDGES_S,
            registry=self.registry,
        )
        self._queue_oldest = Gauge(
            "hlm_queue_oldest_seconds", "For how long the oldest query has been queued.", registry=self.registry
        )
        self._workers = Gauge("hlm_workers", "Workers, by state.", ["state"], registry=self.registry)
        self._stalls = Counter("hlm_worker_stalls", "Workers found stuck or dead.", registry=self.registry)
        self._restarts = Counter("hlm_worker_restarts", "Workers that were replaced.", registry=self.registry)
        probes = Counter("hlm_engine_probes", "Probes of an idle engine.", ["result"], registry=self.registry)
        self._probes = {result: probes.labels(result) for result in ("passed", "failed")}
        self._logged = {result: records.labels(result) for result in ("written", "dropped", "failed")}

    def request_logged(self, result: str, count: int) -> None:
        """What became of `count` sampled requests: `written`, `dropped` or `failed`."""
        self._logged[result].inc(count)

    def traced(self, result: str) -> None:
        """A request that was to be traced was `recorded`, or `limited`."""
        self._traced[result].inc()

    def loop_lagged(self, seconds: float) -> None:
        """Something due on the event loop came so late."""
        self._loop_lag.observe(seconds)

    def observe_workers(self, counts: Callable[[], Mapping[str, int]], oldest_s: Callable[[], float]) -> None:
        """Read these gauges when they are scraped; `counts` has a number for each of `WORKER_STATES`."""
        for state in WORKER_STATES:
            self._workers.labels(state).set_function(_count_of(counts, state))
        self._queue_oldest.set_function(oldest_s)

    def worker_stalled(self) -> None:
        """A worker was found stuck or dead."""
        self._stalls.inc()

    def worker_restarted(self) -> None:
        """A worker was replaced."""
        self._restarts.inc()

    def probed(self, result: str) -> None:
        """A probe of the engine `passed` or `failed`."""
        self._probes[result].inc()

    def observe_state(self, queued: Callable[[], int], running: Callable[[], int], ready: Callable[[], bool]) -> None:
        """Read these gauges when they are scraped."""
        self._queued.set_function(queued)
        self._running.set_function(running)
        self._ready.set_function(ready)

    def ads_served(self, count: Callable[[], int]) -> None:
        """Read from here, when it is scraped, how many ads can be found."""
        self._ads.set_function(count)

    def observe_cache(self, held_bytes: Callable[[], int], entries: Callable[[], int]) -> None:
        """Read these gauges when they are scraped."""
        self._cache_bytes.set_function(held_bytes)
        self._cache_entries.set_function(entries)

    def looked_up(self, cache: str, *, hit: bool) -> None:
        """A cache, `embedding` or `result`, was asked."""
        self._lookups[cache, hit].inc()

    def answered(self, times: StageTimes, *, complete: bool, steps: Sequence[StepName] = ()) -> None:
        """A request got its ads; `steps` are those that made the answer cheaper."""
        self._outcomes["ok"].inc()
        for step in steps:
            self._degraded[step].inc()
        if not complete:
            self._incomplete.inc()
        self._later(times)

    def refused(self, outcome: str) -> None:
        """A request got no ads; `outcome` is one of `OUTCOMES`."""
        self._outcomes[outcome].inc()

    def batch_ran(self, batch: BatchCost) -> None:
        """A worker ran a batch; from any thread."""
        if batch.lengths:
            self._later(batch)

    def _later(self, seen: StageTimes | BatchCost) -> None:
        self._pending.append(seen)
        if len(self._pending) >= OBSERVED_TOGETHER:
            self._observe_pending()

    def _observe_pending(self) -> None:
        with contextlib.suppress(IndexError):  # two threads may be at it
            while True:
                seen = self._pending.popleft()
                if isinstance(seen, StageTimes):
                    for stage, observer in self._stages.items():
                        observer.observe(getattr(seen, stage))
                else:
                    self._batch_size.observe(len(seen.lengths))
                    self._batch_tokens.observe(seen.padded_tokens)
                    self._batch_padding.observe(1 - sum(seen.lengths) / seen.padded_tokens)


class _First:
    """A collector without metrics, by which what is pending is observed before a scrape."""

    def __init__(self, before_scrape: Callable[[], None]) -> None:
        self._before_scrape = before_scrape

    def collect(self) -> Iterator[Metric]:
        """Called by the registry, in the order of registration."""
        self._before_scrape()
        return iter(())


SERVING_TOOLS = (
    "hlm-retrieval",
    "fastapi",
    "uvicorn",
    "onnxruntime",
    "onnxruntime-gpu",
    "tokenizers",
    "hnswlib",
    "numpy",
)


def _count_of(counts: Callable[[], Mapping[str, int]], state: str) -> Callable[[], float]:
    return lambda: counts()[state]


def _label_names(versions: dict[str, str]) -> dict[str, str]:
    return {name.replace("-", "_"): version for name, version in versions.items()}
