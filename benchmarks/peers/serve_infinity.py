"""Infinity for embeddings, and a small server before it that asks it over HTTP and searches: two hops, two processes.

Infinity pools and normalises by itself, so that its copy of the graph ends before that; the weights are the same. It
leaves the number of threads to onnxruntime, which counts the machine's cores and pins its threads to them, also to
those that the process is not to use; here it is told.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import numpy as np
import onnx
import onnxruntime
import uvicorn
from fastapi import FastAPI, HTTPException
from onnx.utils import extract_model
from pydantic import BaseModel

from benchmarks.peers.pipeline import Pipeline, open_pipeline

PORT = int(os.environ["PEER_PORT"])
TIMEOUT_S = int(os.environ["PEER_TIMEOUT_MS"]) / 1e3
EMBEDDINGS_PORT = PORT + 1_000


class RetrieveRequest(BaseModel):
    """The query; other fields are ignored."""

    query: str


class Gateway:
    """Query text → ad ids, with the embedding from elsewhere."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self.app = FastAPI(lifespan=self._lifespan)
        self.app.post("/retrieve")(self.retrieve)

    async def retrieve(self, request: RetrieveRequest) -> dict[str, list[str]]:
        """Ask for the embedding, and search."""
        asked = {"model": "student", "input": [request.query]}
        try:
            async with self._client.post(f"http://127.0.0.1:{EMBEDDINGS_PORT}/embeddings", json=asked) as answer:
                answer.raise_for_status()
                [found] = (await answer.json())["data"]
        except (TimeoutError, aiohttp.ClientError) as error:
            raise HTTPException(503, "no embedding") from error
        return {"ad_ids": self._pipeline.search(np.array([found["embedding"]], np.float32))[0]}

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(TIMEOUT_S)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as self._client:
            yield


def write_model(directory: Path) -> None:
    """The checkpoint's settings, and the service's graph up to the pooling, as Infinity expects to find them."""
    checkpoint = Path(os.environ["PEER_CHECKPOINT"])
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (directory / name).write_bytes((checkpoint / name).read_bytes())
    target = directory / "model.onnx"
    inputs = ["input_ids", "attention_mask"]
    extract_model(
        Path(os.environ["PEER_ENCODER"]) / "model.onnx", target, inputs, ["token_embeddings"], check_model=False
    )
    model = onnx.load(target)
    model.graph.output[0].name = "last_hidden_state"
    model.graph.node.append(onnx.helper.make_node("Identity", ["token_embeddings"], ["last_hidden_state"]))
    onnx.save(model, target)


def embed(directory: str) -> None:
    """Infinity itself."""
    from infinity_emb import EngineArgs, create_server  # noqa: PLC0415 - only in its own process

    threads = int(os.environ["PEER_WORKERS"])
    defaults = onnxruntime.SessionOptions

    def told() -> onnxruntime.SessionOptions:
        options = defaults()
        options.intra_op_num_threads = threads
        return options

    onnxruntime.SessionOptions = told
    os.chdir(directory)  # of local models, it takes only a path with the file's name alone for one that is there
    engine = EngineArgs(
        model_name_or_path=".",
        served_model_name="student",
        engine="optimum",
        device="cpu",
        batch_size=32,
        pooling_method="mean",
        onnx_disable_optimize=True,
    )
    app = create_server(engine_args_list=[engine])
    uvicorn.run(app, host="127.0.0.1", port=EMBEDDINGS_PORT, http="httptools", log_level="warning")


def main() -> None:
    """Both processes; a signal to end goes to both."""
    with tempfile.TemporaryDirectory() as directory:
        write_model(Path(directory))
        embedding = subprocess.Popen([sys.executable, "-m", "benchmarks.peers.serve_infinity", directory])
        try:
            app = Gateway(open_pipeline()).app
            uvicorn.run(app, host="127.0.0.1", port=PORT, log_level="warning")
        finally:
            embedding.terminate()
            embedding.wait()


if __name__ == "__main__":
    embed(sys.argv[1]) if len(sys.argv) > 1 else main()
