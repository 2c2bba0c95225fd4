"""The state of one serving process: loading, ready, draining, stopped."""

import gc

from cores import usable_cores
from service.batch_queue import BatchPolicy
from service.batcher import MicroBatcher
from service.errors import NotReadyError
from service.loading import ReleaseLoader
from service.metrics import Metrics
from service.release import Release
from service.releases import Releases
from service.retriever import Found, Retriever, TokenizedQuery, make_pipeline
from service.settings import Settings


class Service:
    """Owns the release, the batcher and the metrics, and knows whether requests may come."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.metrics.observe_state(self._queued, self._running, lambda: self.ready)
        self.draining = False
        loader = ReleaseLoader(settings.swap, settings.batching.max_batch_size)
        self.releases = Releases(settings, self.metrics, loader.load)
        self._retriever: Retriever | None = None
        self._batcher: MicroBatcher[TokenizedQuery, Found] | None = None

    @property
    def release(self) -> Release | None:
        """The stable one, once it is loaded."""
        return self.releases.stable

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
        release = await self.releases.start()
        policy = BatchPolicy(batching.max_batch_size, batching.max_batch_tokens, batching.max_queue_size)
        workers = usable_cores() if batching.workers is None else batching.workers
        self._batcher = MicroBatcher(make_pipeline(release, self.metrics), policy, workers)
        self._batcher.start()
        self._retriever = Retriever(release, self._batcher, self.metrics)
        gc.collect()
        gc.freeze()  # what a release consists of stays: later collections need not walk it
        return release

    async def stop(self) -> None:
        """Finish what is queued and end the workers."""
        await self.releases.stop()
        if self._batcher is not None:
            await self._batcher.stop(self.settings.server.shutdown_timeout_ms / 1e3)

    def _queued(self) -> int:
        return self._batcher.queued if self._batcher else 0

    def _running(self) -> int:
        return self._batcher.running_batches if self._batcher else 0
