"""mosec as its documentation has it: a worker process a core; a batch waits 1 ms, the least that it takes."""

import os
from typing import Any

from mosec import Runtime, Server, Worker

from benchmarks.peers.pipeline import open_pipeline


class Retrieve(Worker):  # type: ignore[misc]
    """One thread."""

    def __init__(self) -> None:
        self._pipeline = open_pipeline()

    def forward(self, data: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """A batch of requests."""
        return [{"ad_ids": ad_ids} for ad_ids in self._pipeline([one["query"] for one in data])]


if __name__ == "__main__":
    server = Server()
    server.register_runtime(
        {"/retrieve": [Runtime(Retrieve, num=int(os.environ["PEER_WORKERS"]), max_batch_size=32, max_wait_time=1)]}
    )
    server.run()
