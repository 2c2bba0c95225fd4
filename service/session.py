"""The only importer of onnxruntime: one ONNX graph, loaded and run."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from artifacts.errors import HlmError
from service.execution_providers import CPU_ONLY, ExecutionProviders

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # since 1.29 it reports each session to its maker; read when it is imported
import onnxruntime as ort

OUTPUT_NAME = "embedding"


class SessionError(HlmError):
    """A graph cannot be loaded, or is not an encoder."""


class EncoderSession:
    """An encoder graph; `run` may be called from several threads at once."""

    def __init__(self, path: Path, *, intra_op_threads: int = 1, providers: ExecutionProviders = CPU_ONLY) -> None:
        """Load the graph.

        Args:
            path: `model.onnx`.
            intra_op_threads: threads inside one run. One is best where batches already run side by side.
            providers: what it may run on.

        Raises:
            ExecutionProviderError: one of them cannot be had.
            SessionError: the file is not a graph that this runtime can load, or lacks the encoder's output.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = intra_op_threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        # The export has optimised the graph; more at load would merge residuals into SkipLayerNormalization, whose CPU
        # kernel is slower than the nodes it replaces (docs/experiments.md, "int8 variants").
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.log_severity_level = 3  # warnings are about fusions that did not match; errors are raised
        # Shapes change with every batch, so a memory plan per shape would only grow (onnxruntime #13500).
        options.enable_mem_pattern = False
        to_try = providers.to_try(ort.get_available_providers())
        try:
            self._session = ort.InferenceSession(str(path), options, providers=to_try)
        except Exception as error:  # onnxruntime's own exceptions share no base class
            raise SessionError(f"{path}: not a graph that onnxruntime {ort.__version__} can load: {error}") from error
        self.execution_providers = tuple(self._session.get_providers())
        """What it runs on, first what most of it does."""
        providers.check_running(self.execution_providers)
        outputs = [output.name for output in self._session.get_outputs()]
        if outputs != [OUTPUT_NAME]:
            raise SessionError(f"{path}: has outputs {outputs} where an encoder has exactly ['{OUTPUT_NAME}']")
        self._needs_token_types = "token_type_ids" in {entry.name for entry in self._session.get_inputs()}

    def run(self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]) -> NDArray[np.float32]:
        """Encode one padded batch: two (batch, length) arrays in, embeddings (batch, dim) out."""
        feeds = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self._needs_token_types:
            feeds["token_type_ids"] = np.zeros_like(input_ids)
        embeddings: NDArray[np.float32] = self._session.run([OUTPUT_NAME], feeds)[0]
        return embeddings


def pad(token_ids: Sequence[Sequence[int]], pad_token_id: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Right-pad to the longest of the batch: `input_ids` and `attention_mask`, each (batch, length)."""
    length = max(map(len, token_ids))
    input_ids = np.full((len(token_ids), length), pad_token_id, dtype=np.int64)
    attention_mask = np.zeros((len(token_ids), length), dtype=np.int64)
    for row, ids in enumerate(token_ids):
        input_ids[row, : len(ids)] = ids
        attention_mask[row, : len(ids)] = 1
    return input_ids, attention_mask
