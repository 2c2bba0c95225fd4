"""The state of one serving process: loading, ready, draining, stopped."""

import gc

from cores import usable_cores
from service.batch_queue import BatchPolicy
from service.batcher import MicroBatcher
from service.cache import EmbeddingCache
from service.errors import NotReadyError
from service.exchange import OnDone, Origin
from service.metrics import Metrics
from service.pipeline import Found, Query, make_pipeline
from service.release import Release, load_release
from service.retriever import Retriever, Work
from service.settings import Settings
from service.shadow import Shadow


class Service:
    """Owns the release, the batcher and the metrics, and knows whether requests may come."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.draining = False
        self.release: Release | None = None
        batching = settings.batching
        workers = usable_cores() if batching.workers is None else batching.workers
        embeddings = EmbeddingCache(settings.cache.embedding_bytes)
        self.batcher: MicroBatcher[Query, Found] = MicroBatcher(
            make_pipeline(embeddings),
            BatchPolicy(batching.max_batch_size, batching.max_batch_tokens, batching.max_queue_size),
            workers,
            run_alone_on_loop=workers == 1,
            on_batch=self.metrics.batch_ran,
        )
        self._retriever = Retriever(settings, self._choose, self.batcher, embeddings, self.metrics)
        self.metrics.observe_state(
            lambda: self.batcher.queued, lambda: self.batcher.running_batches, lambda: self.ready
        )
        self.metrics.observe_cache(lambda: embeddings.bytes, lambda: len(embeddings))

    @property
    def release(self) -> Release | None:
        """The stable one, once it is loaded."""
        return self.releases.stable

    @property
    def ready(self) -> bool:
        """Whether a load balancer should send requests here."""
        return not self.draining and self.release is not None and self.batcher.alive

    def handle(self, body: bytes, origin: Origin, on_done: OnDone) -> Work | None:
        """Answer one `POST /retrieve`, also while draining, since callers learn of a drain with delay."""
        return self._retriever.handle(body, origin, on_done)

    async def start(self) -> Release:
        """Load, verify and warm up the release beside the running event loop, then take requests.

        Raises:
            HlmError: the release cannot be served.
        """
        batch_sizes = (1, self.settings.batching.max_batch_size)
        release = await asyncio.to_thread(load_release, self.settings.release, batch_sizes)
        self.batcher.start()
        self.release = release
        self.monitor.serve(release)
        gc.collect()
        gc.freeze()  # what a release consists of stays: later collections need not walk it
        return release

    async def stop(self) -> None:
        """Finish what is queued and end the workers."""
        if self.release is not None:
            await self.batcher.stop(self.settings.server.shutdown_timeout_ms / 1e3)

    def _choose(self, request_id: str, asked: str | None) -> Release:  # noqa: ARG002
        if self.release is None:
            raise NotReadyError("the release is still being loaded")
        return self.release
