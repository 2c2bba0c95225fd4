"""Query text → ad ids on the artifacts of this project, with nothing of this project: what every peer serves.

Each peer has an environment of its own, which has this file's imports and the peer's package, and nothing else.
"""

import json
import os
from itertools import pairwise
from pathlib import Path

import hnswlib
import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

TOP_K = 100


class Pipeline:
    """The same ONNX graph, tokenizer and HNSW graph as the service, on one thread.

    Args:
        encoder: encoder artifact.
        index: index artifact of one segment.
    """

    def __init__(self, encoder: Path, index: Path) -> None:
        text = json.loads((encoder / "manifest.json").read_text())["text"]
        self._tokenizer = Tokenizer.from_file(str(encoder / "tokenizer.json"))
        self._tokenizer.enable_truncation(text["max_query_tokens"])
        self._tokenizer.enable_padding(pad_id=text["pad_token_id"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(encoder / "model.onnx", options, ["CPUExecutionProvider"])
        manifest = json.loads((index / "manifest.json").read_text())
        [segment] = manifest["segments"]
        directory = index / "segments" / segment["name"]
        self._graph = hnswlib.Index(space="ip", dim=manifest["space"]["dim"])
        self._graph.load_index(str(directory / "graph.hnsw"))
        self._graph.set_num_threads(1)
        self._graph.set_ef(max(TOP_K, segment["ef_search"]))
        self._ad_ids = _texts(index / "ads", "ad_id")
        self._rows = np.load(directory / "rows.npy")

    def __call__(self, queries: list[str]) -> list[list[str]]:
        """The ids of `TOP_K` ads of each query, best first."""
        encodings = self._tokenizer.encode_batch(queries)
        embeddings = self._session.run(
            None,
            {
                "input_ids": np.array([one.ids for one in encodings], np.int64),
                "attention_mask": np.array([one.attention_mask for one in encodings], np.int64),
            },
        )[0]
        return self.search(embeddings)

    def search(self, embeddings: NDArray[np.float32]) -> list[list[str]]:
        """The same for embeddings, shape (n, dim)."""
        labels, _ = self._graph.knn_query(embeddings, k=TOP_K, num_threads=1)
        return [[self._ad_ids[self._rows[label]] for label in row] for row in labels]


def open_pipeline() -> Pipeline:
    """With the artifacts that the environment names."""
    return Pipeline(Path(os.environ["PEER_ENCODER"]), Path(os.environ["PEER_INDEX"]))


def _texts(directory: Path, name: str) -> list[str]:
    blob = np.load(directory / f"{name}.blob.npy").tobytes()
    offsets = np.load(directory / f"{name}.offsets.npy")
    return [blob[begin:end].decode() for begin, end in pairwise(offsets)]
