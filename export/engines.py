"""Builds an artifact's TensorRT engine on the GPU that it is for, by loading it there as the service does."""

from pathlib import Path
from time import perf_counter

from artifacts.errors import HlmError
from service.encoder import Encoder
from service.settings import InferenceSettings
from terminal import console, waiting

ON_TENSORRT = {"execution_providers": ["TensorrtExecutionProvider", "CUDAExecutionProvider"]}


class EngineError(HlmError):
    """An engine cannot be built."""


def build_engines(artifact: Path, max_batch_size: int) -> None:
    """Build the engine for all shapes of batches up to a size, unless it lies beside the artifact already.

    Raises:
        EngineError: there is no TensorRT or no GPU here; the artifact itself is whole.
    """
    started = perf_counter()
    providers = InferenceSettings.model_validate(ON_TENSORRT).providers(max_batch_size)
    try:
        with waiting(f"Building the TensorRT engine of {artifact}, which takes minutes"):
            encoder, _ = Encoder.load(artifact, providers=providers)
    except HlmError as error:
        raise EngineError(f"{artifact} is exported, but its engine cannot be built here: {error}") from error
    count = len(encoder.shape_costs.seconds) if encoder.shape_costs else 0
    console.print(f"{artifact}: engine for {count} shapes in {perf_counter() - started:.0f} s", markup=False)
