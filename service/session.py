"""The only importer of onnxruntime: one ONNX graph, loaded and run."""

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from artifacts.errors import HlmError
from service.device_faults import fault_of
from service.execution_providers import CPU, CPU_ONLY, ExecutionProviders, captures_graphs, device_of
from service.pinned import host_array
from service.shapes import Shape

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # since 1.29 it reports each session to its maker; read when it is imported
import onnxruntime as ort

OUTPUT_NAME = "embedding"
TOKEN_TYPES = "token_type_ids"  # noqa: S105 - of a text
GRAPH_ID = "gpu_graph_id"
"""The run option that tells onnxruntime's CUDA graphs apart; nothing to a provider without them."""


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
        to_try = providers.to_try(ort.get_available_providers())
        options = _session_options(intra_op_threads)
        if to_try[0][0] != CPU:
            # Weights beside the arena, which is then as large as what runs need, and no larger.
            options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
            _load_cuda()
        self._session = _open(path, options, to_try, allow_fallback=providers.allow_fallback)
        self.execution_providers = tuple(self._session.get_providers())
        """What it runs on, first what most of it does."""
        providers.check_running(self.execution_providers)
        outputs = self._session.get_outputs()
        names = [output.name for output in outputs]
        if names != [OUTPUT_NAME]:
            raise SessionError(f"{path}: has outputs {names} where an encoder has exactly ['{OUTPUT_NAME}']")
        self._dim = outputs[0].shape[-1]
        told = self._session.get_provider_options()
        self._device = device_of(self.execution_providers[0], told)
        self.captures = captures_graphs(self.execution_providers[0], told)
        """Whether the first runs of a shape capture it as a CUDA graph."""
        self._needs_token_types = TOKEN_TYPES in {entry.name for entry in self._session.get_inputs()}

    def run(self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]) -> NDArray[np.float32]:
        """Encode one padded batch: two (batch, length) arrays in, embeddings (batch, dim) out."""
        feeds = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self._needs_token_types:
            feeds[TOKEN_TYPES] = np.zeros_like(input_ids)
        embeddings: NDArray[np.float32] = self._session.run([OUTPUT_NAME], feeds)[0]
        return embeddings

    def bind(self, shape: Shape, graph_id: int) -> "BoundRun":
        """Set up runs of one shape between fixed places in the memory of what the graph runs on.

        Args:
            shape: of the batches.
            graph_id: number of the CUDA graph that its runs are captured as, where that is turned on.
        """
        device_type, device_id = self._device
        names = ["input_ids", "attention_mask"] + [TOKEN_TYPES] * self._needs_token_types
        zeros = np.zeros(shape, dtype=np.int64)
        inputs = {name: ort.OrtValue.ortvalue_from_numpy(zeros.copy(), device_type, device_id) for name in names}
        size = (shape.batch, self._dim)
        output = ort.OrtValue.ortvalue_from_shape_and_type(size, np.float32, device_type, device_id)
        return BoundRun(self._session, shape, inputs, output, graph_id)


def _session_options(intra_op_threads: int) -> ort.SessionOptions:
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
    return options


def _open(
    path: Path, options: ort.SessionOptions, to_try: Sequence[tuple[str, dict[str, str]]], *, allow_fallback: bool
) -> ort.InferenceSession:
    """Load a graph; by itself onnxruntime would try again on the CPU, and print why to standard output."""
    first = to_try[0][0]
    try:
        if first == CPU:
            return ort.InferenceSession(str(path), options, providers=to_try)
        with contextlib.redirect_stdout(sys.stderr):
            return ort.InferenceSession(str(path), options, providers=to_try, enable_fallback=int(allow_fallback))
    except Exception as error:  # onnxruntime's own exceptions share no base class
        where = "" if first == CPU else f" on {first}"
        raise SessionError(
            f"{path}: not a graph that onnxruntime {ort.__version__} can load{where}: {error}"
        ) from error


def _load_cuda() -> None:
    """Find CUDA's libraries also where they were installed as packages; onnxruntime prints those it does not find."""
    with contextlib.redirect_stdout(sys.stderr):
        ort.preload_dlls()


class BoundRun:
    """A graph's run on one shape: inputs and output stay where they are, as a CUDA graph demands.

    Only the tokens go to the device, and only batch × dim floats come back. Not thread-safe.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        shape: Shape,
        inputs: dict[str, ort.OrtValue],
        output: ort.OrtValue,
        graph_id: int,
    ) -> None:
        self._session = session
        self._inputs = inputs
        self._output = output
        self._binding = session.io_binding()
        for name, value in inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        self._binding.bind_ortvalue_output(OUTPUT_NAME, output)
        self._options = ort.RunOptions()
        self._options.add_run_config_entry(GRAPH_ID, str(graph_id))
        device_type = output.device_name()
        self._input_ids = host_array(shape, np.int64, device_type)
        self._attention_mask = host_array(shape, np.int64, device_type)

    def run(self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]) -> NDArray[np.float32]:
        """Encode a padded batch that fits into the shape: two (rows, length) arrays in, embeddings (rows, dim) out.

        A row that is left over is one token long, so that its mean exists.

        Raises:
            DeviceFaultError: the device is lost, or out of memory.
        """
        rows, length = input_ids.shape
        self._input_ids[:rows, :length] = input_ids  # under the mask anything may stand, what was there before too
        self._attention_mask.fill(0)
        self._attention_mask[:, 0] = 1
        self._attention_mask[:rows, :length] = attention_mask
        try:
            return self._run()[:rows].copy()  # on the CPU it is the output's own memory
        except Exception as error:
            fault = fault_of(error)
            if fault is None:
                raise
            raise fault from error

    def _run(self) -> NDArray[np.float32]:
        self._inputs["input_ids"].update_inplace(self._input_ids)
        self._inputs["attention_mask"].update_inplace(self._attention_mask)
        self._session.run_with_iobinding(self._binding, self._options)
        embeddings: NDArray[np.float32] = self._output.numpy()
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
