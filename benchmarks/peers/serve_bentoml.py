"""BentoML as its documentation has it, a batchable API, which callers address directly: no second service before it."""

import os

import bentoml

from benchmarks.peers.pipeline import open_pipeline

TIMEOUT_MS = int(os.environ["PEER_TIMEOUT_MS"])


@bentoml.service(
    workers=int(os.environ["PEER_WORKERS"]),
    logging={"access": {"enabled": False}},
    traffic={"timeout": TIMEOUT_MS / 1e3, "max_concurrency": int(os.environ["PEER_PLACES"])},
)
class Retrieve:
    """One worker process a core."""

    def __init__(self) -> None:
        self._pipeline = open_pipeline()

    @bentoml.api(route="/retrieve", batchable=True, max_batch_size=32, max_latency_ms=TIMEOUT_MS)  # type: ignore[untyped-decorator]
    def retrieve(self, queries: list[str]) -> list[list[str]]:
        """A batch."""
        return self._pipeline(queries)
