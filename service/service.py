"""One serving process: everything that it consists of is put together here, started and stopped in order."""

import asyncio
import gc
from collections.abc import Hashable
from functools import partial

from cores import usable_cores
from index.live import LiveStats
from service.ad_changes import AdChanges
from service.answer import Write, to_json
from service.batch_queue import BatchPolicy
from service.batcher import MicroBatcher
from service.cache import EmbeddingCache
from service.cost import BatchCost
from service.errors import Overloaded
from service.gpu import read_load
from service.live_parts import LiveOpener
from service.loading import ReleaseLoader
from service.low_lane import LowLane
from service.metrics import Metrics
from service.monitor import RecallMonitor
from service.offline_retriever import OfflineRetriever
from service.origin import OnDone, Origin
from service.pacing import Pacer
from service.pipeline import Found, Query, make_pipeline, measure_costs
from service.probe import Probe
from service.release import Release
from service.releases import Releases
from service.request_log import open_request_log
from service.retriever import Retriever, Work
from service.settings import Settings, read_request_log_key
from service.shadow import Shadow
from service.shapes import ShapeCosts
from service.tracing import open_tracer
from service.watchdog import Watchdog
from service.watchers import LogWatcher, QualityWatcher, ReleaseWatcher, TraceWatcher

LAST_SPANS_S = 2.0
"""For the last traces, at the end; a collector that is away must not hold up the end of the process."""


class Service:
    """Owns all parts, and knows whether requests may come."""

    def __init__(self, settings: Settings) -> None:
        """Put the parts together; nothing runs before `start`.

        Raises:
            StartupError: the request log cannot be written, or tracing lacks its packages.
        """
        self.settings = settings
        self.metrics = Metrics()
        self._pacer = Pacer()
        self.draining = False
        live = LiveOpener(
            settings.record.synchronous, self.metrics.ads, self.metrics.live, lambda: self.batcher.is_busy
        )
        max_batch_size = settings.batching.max_batch_size
        loader = ReleaseLoader(settings.swap, max_batch_size, live, settings.inference.providers(max_batch_size))
        self.releases = Releases(settings, self.metrics, loader.load)
        embeddings = EmbeddingCache(settings.cache.embedding_bytes)
        self.batcher = self._make_batcher(embeddings)
        self._retriever = Retriever(settings, self.releases.traffic.choose, self.batcher, embeddings, self.metrics)
        stall_s = settings.health.worker_stall_ms / 1e3
        self._probe = Probe(lambda: self.release, self.metrics, limit_s=stall_s)
        self._watchdog = Watchdog(self.batcher, self._probe, self.metrics, stall_s=stall_s)
        self._low_lane = LowLane(self.metrics.lane)
        self.offline = OfflineRetriever(self._low_lane, self.metrics.lane, settings.limits.max_batch_requests)
        self.changes = AdChanges(lambda: self.releases.held, self._low_lane, self.metrics.ads)
        self._monitor = RecallMonitor(self._low_lane, self.metrics.lane, settings.monitor.recall_sample_share)
        self._shadow = Shadow(self._low_lane, self.metrics.lane)
        self._request_log = open_request_log(settings.request_log, read_request_log_key(), self.metrics)
        self._tracer = open_tracer(settings.tracing, self.metrics)
        self._connect(embeddings)

    @property
    def release(self) -> Release | None:
        """The stable one, once it is loaded."""
        return self.releases.stable

    @property
    def has_served(self) -> bool:
        """Whether there may be clients who have to learn that this ends."""
        return self.release is not None

    @property
    def problems(self) -> tuple[str, ...]:
        """Why a load balancer should send no requests here; empty while it should."""
        if self.draining:
            return ("draining",)
        if self.release is None or not self._started:
            return ("the release is still being loaded",)
        return self._watchdog.problems

    @property
    def ready(self) -> bool:
        """Whether a load balancer should send requests here."""
        return not self.problems

    @property
    def live(self) -> bool:
        """False where only a new process can help."""
        return self._watchdog.live

    def handle(self, body: bytes, origin: Origin, on_done: OnDone, write: Write = to_json) -> Work | None:
        """Answer one `POST /retrieve`, also while draining, since callers learn of a drain with delay."""
        return self._retriever.handle(body, origin, on_done, write)

    def shed(self, body: bytes, caller: str) -> Overloaded | None:
        """Why a request is refused without a look at more of it than its time budget; None where it is not."""
        refusal = self._retriever.shed(body, caller)
        if refusal is not None:
            self._pacer.refused(asyncio.get_running_loop())
        return refusal

    async def start(self) -> None:
        """Load, verify and warm up the release beside the running event loop, then take requests.

        Gives no release back: whoever started this would keep the first one in memory for good.

        Raises:
            HlmError: the release cannot be served.
        """
        self.batcher.start()
        release = await self.releases.start()
        for cost in await asyncio.to_thread(measure_costs, release, self.settings.batching.max_batch_size):
            self.batcher.learn(cost)
        self._low_lane.start()
        self._watchdog.start()
        gc.collect()
        gc.freeze()  # what a release consists of stays: later collections need not walk it
        self._started = True

    async def stop(self) -> None:
        """Finish what is queued and end all parts."""
        timeout_s = self.settings.server.shutdown_timeout_ms / 1e3
        await self.releases.stop()
        if self._started:
            self._watchdog.stop()
            await self._low_lane.stop(timeout_s)
        await self.batcher.stop(timeout_s)
        for live in {release.live for release in self.releases.held if release.live}:
            await asyncio.to_thread(live.close)
        if self._request_log is not None:
            await asyncio.to_thread(self._request_log.close, timeout_s)
        if self._tracer is not None:
            await asyncio.to_thread(self._tracer.close, LAST_SPANS_S)

    def _make_batcher(self, embeddings: EmbeddingCache) -> MicroBatcher[Query, Found]:
        settings = self.settings
        lanes = settings.inference.providers(settings.batching.max_batch_size).lanes
        in_flight = None if lanes is None else lanes.batches_in_flight
        workers = settings.batching.workers or max(usable_cores(), (in_flight or 0) + 1)
        return MicroBatcher(
            make_pipeline(embeddings),
            self._batch_policy(None),
            workers,
            batches_in_flight=in_flight,
            run_few_on_loop=workers == 1 and lanes is None,
            on_batch=self._batch_ran,
            on_failure=self.metrics.gpu.failed,
        )

    def _batch_policy(self, costs: ShapeCosts | None) -> BatchPolicy:
        """The settings' limits; on a device no batch is larger than pays there."""
        batching = self.settings.batching
        most = batching.max_batch_size if costs is None else min(batching.max_batch_size, costs.max_batch_size())
        return BatchPolicy(most, batching.max_batch_tokens, batching.max_queue_size, costs)

    def _connect(self, embeddings: EmbeddingCache) -> None:
        """Tell the parts of each other."""
        self._started = False
        self._retriever.watchers += [
            ReleaseWatcher(self.releases),
            QualityWatcher(self.releases, self._monitor, self._shadow),
            *([LogWatcher(self._request_log)] if self._request_log else []),
            *([TraceWatcher(self._tracer)] if self._tracer else []),
        ]
        self.releases.on_change.append(self._releases_changed)
        self.releases.on_retired += [self._monitor.retire, self._retriever.retire]
        self.metrics.observe_state(
            lambda: self.batcher.queued, lambda: self.batcher.running_batches, lambda: self.ready
        )
        self.metrics.live.observe(self._live_stats)
        device = self.settings.inference.gpu
        if device is not None:
            self.metrics.gpu.observe(partial(read_load, device))
        self.metrics.observe_cache(lambda: embeddings.bytes, lambda: len(embeddings))

    def _live_stats(self) -> LiveStats | None:
        release = self.release
        return release.live.index.live_stats() if release is not None and release.live is not None else None

    def _releases_changed(self) -> None:
        releases = self.releases
        if releases.stable is not None:
            self.batcher.adapt(self._batch_policy(releases.stable.encoder.shape_costs))
        for release in (releases.stable, releases.canary):
            if release is not None:
                self._monitor.serve(release)
        shares = {releases.canary: self.settings.monitor.canary_sample_share, releases.shadow: releases.shadow_share}
        self._shadow.compare({release: share for release, share in shares.items() if release is not None})

    def _batch_ran(self, release: Hashable, cost: BatchCost) -> None:
        if release is self.release and cost.lengths:  # a canary proves itself alone, a cached embedding no encoder
            self._probe.proved()
        self.metrics.batch_ran(cost)
