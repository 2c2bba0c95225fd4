"""Ray Serve as its documentation has it: a replica that batches what it is asked, without FastAPI in between.

Like every server that is compared, it listens on the loopback interface alone. Ray Serve has no setting for the port on
which its proxy reaches a replica, so that its function is given another address.
"""

import os
from typing import Any

import ray
from ray import serve
from ray.serve._private import replica
from starlette.requests import Request

from benchmarks.peers.pipeline import open_pipeline

PLACES = int(os.environ["PEER_PLACES"])
WORKERS = int(os.environ["PEER_WORKERS"])
ONGOING = min(64, PLACES)
"""Of one replica: a batch in work and one that forms."""


@serve.deployment(
    num_replicas=WORKERS,
    max_ongoing_requests=ONGOING,
    max_queued_requests=max(1, PLACES - ONGOING),
    logging_config={"enable_access_log": False},
)
class Retrieve:
    """One replica a core."""

    def __init__(self) -> None:
        self._pipeline = open_pipeline()

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.001)  # type: ignore[untyped-decorator]
    async def _retrieve(self, queries: list[str]) -> list[list[str]]:
        return self._pipeline(queries)

    async def __call__(self, request: Request) -> dict[str, Any]:
        """One request."""
        return {"ad_ids": await self._retrieve((await request.json())["query"])}


def keep_to_loopback() -> None:
    """Have the replicas of this process listen there."""
    listen = replica.add_port_to_grpc_server
    replica.add_port_to_grpc_server = lambda server, _: listen(server, "127.0.0.1:0")


if __name__ == "__main__":
    hook = {"worker_process_setup_hook": keep_to_loopback}
    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, runtime_env=hook)
    http = serve.HTTPOptions(
        host="127.0.0.1",
        port=int(os.environ["PEER_PORT"]),
        request_timeout_s=int(os.environ["PEER_TIMEOUT_MS"]) / 1e3,
    )
    serve.start(http_options=http)
    serve.run(Retrieve.bind(), route_prefix="/retrieve", blocking=True)  # type: ignore[attr-defined]
