"""LitServe as its documentation has it, with batching; 1 ms is waited for a batch, since 0 polls without a pause."""

import os
from typing import Any

import litserve

from benchmarks.peers.pipeline import open_pipeline


class Retrieve(litserve.LitAPI):  # type: ignore[misc]
    """One worker process a core."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - the signature is LitServe's
        """Load."""
        self._pipeline = open_pipeline()

    def decode_request(self, request: dict[str, Any]) -> str:
        """The query."""
        query: str = request["query"]
        return query

    def predict(self, queries: list[str]) -> list[list[str]]:
        """A batch."""
        return self._pipeline(queries)

    def encode_response(self, ad_ids: list[str]) -> dict[str, Any]:
        """The answer."""
        return {"ad_ids": ad_ids}


if __name__ == "__main__":
    api = Retrieve(max_batch_size=32, batch_timeout=0.001, api_path="/retrieve")
    timeout_s = int(os.environ["PEER_TIMEOUT_MS"]) / 1e3
    workers = int(os.environ["PEER_WORKERS"])
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=workers, timeout=timeout_s)
    server.run(host="127.0.0.1", port=int(os.environ["PEER_PORT"]), generate_client_file=False, log_level="warning")
