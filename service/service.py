"""The state of one serving process: loading, ready, draining, stopped."""

import asyncio
import gc

from cores import usable_cores
from service.batch_queue import BatchPolicy
from service.batcher import MicroBatcher
from service.errors import NotReadyError
from service.low_lane import LowLane
from service.metrics import Metrics
from service.monitor import RecallMonitor
from service.offline_retriever import OfflineRetriever
from service.release import Release, load_release
from service.retriever import Found, Retriever, TokenizedQuery, make_pipeline
from service.settings import Settings
from service.shadow import Shadow


class Service:
    """Owns the release, the batcher and the metrics, and knows whether requests may come."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.metrics.observe_state(self._queued, self._running, lambda: self.ready)
        self.draining = False
        self.release: Release | None = None
        self.low_lane = LowLane(self.metrics.lane)
        self.offline = OfflineRetriever(self.low_lane, self.metrics.lane, settings.limits.max_batch_requests)
        self.monitor = RecallMonitor(self.low_lane, self.metrics.lane, settings.monitor.recall_sample_share)
        self.shadow = Shadow(self.low_lane, self.metrics.lane)
        self._retriever: Retriever | None = None
        self._batcher: MicroBatcher[TokenizedQuery, Found] | None = None

    @property
    def ready(self) -> bool:
        """Whether a load balancer should send requests here."""
        return not self.draining and self._batcher is not None and self._batcher.alive

    @property
    def retriever(self) -> Retriever:
        """What answers requests; also while draining, since callers learn of a drain with delay.

        Raises:
            NotReadyError: nothing is loaded yet.
        """
        if self._retriever is None:
            raise NotReadyError("the release is still being loaded")
        return self._retriever

    async def start(self) -> Release:
        """Load, verify and warm up the release beside the running event loop, then take requests.

        Raises:
            HlmError: the release cannot be served.
        """
        batching = self.settings.batching
        release = await asyncio.to_thread(load_release, self.settings.release, (1, batching.max_batch_size))
        policy = BatchPolicy(batching.max_batch_size, batching.max_batch_tokens, batching.max_queue_size)
        workers = usable_cores() if batching.workers is None else batching.workers
        self._batcher = MicroBatcher(make_pipeline(release, self.metrics, self.monitor), policy, workers)
        self._batcher.start()
        self.low_lane.start()
        self._retriever = Retriever(release, self._batcher, self.metrics, self.shadow)
        self.release = release
        self.monitor.serve(release)
        gc.collect()
        gc.freeze()  # what a release consists of stays: later collections need not walk it
        self.metrics.release_loaded(release)
        return release

    async def stop(self) -> None:
        """Finish what is queued and end the workers."""
        if self._batcher is not None:
            await self._batcher.stop(self.settings.server.shutdown_timeout_ms / 1e3)
            await self.low_lane.stop(self.settings.server.shutdown_timeout_ms / 1e3)

    def _queued(self) -> int:
        return self._batcher.queued if self._batcher else 0

    def _running(self) -> int:
        return self._batcher.running_batches if self._batcher else 0
