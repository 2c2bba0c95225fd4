"""What a device's execution provider is told besides what the settings say: memory, CUDA graphs, TensorRT's profile.

TensorRT builds an engine for a range of shapes, which takes minutes. So the range is exactly that of the lanes, the
engine is built before the release is ready, or by `hlm export --execution-provider tensorrt`, and it is kept beside the
artifact under the names of all that it depends on.
"""

import ctypes
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic

from service.execution_providers import (
    CUDA,
    TENSORRT,
    ExecutionProvider,
    ExecutionProviderError,
    ExecutionProviders,
)
from service.gpu import read_gpu
from service.shapes import Shape

INPUT_NAMES = ("input_ids", "attention_mask", "token_type_ids")
"""Of which an encoder has two or three; TensorRT ignores what is said of one that it lacks."""
LIBRARIES = ("libnvinfer.so.10", "libnvinfer.so.11")

CUDA_OPTIONS = {"arena_extend_strategy": "kSameAsRequested"}
"""Take from the device what a run needs, where the default doubles what it has."""
CUDA_FIRST_OPTIONS = CUDA_OPTIONS | {"enable_cuda_graph": "1"}
"""Graphs need all of the encoder on this provider, so only where it is the most wanted one."""
ENGINE_PATH = "trt_engine_cache_path"
TENSORRT_OPTIONS = {
    "trt_fp16_enable": "1",
    "trt_layer_norm_fp32_fallback": "1",
    "trt_engine_cache_enable": "1",
    "trt_timing_cache_enable": "1",
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineTarget:
    """What an engine is built for; it runs on nothing else."""

    gpu: str
    driver: str
    tensorrt: str


def read_target(device_id: int) -> EngineTarget:
    """What engines would be built for here.

    Raises:
        ExecutionProviderError: there is no GPU, or no TensorRT.
    """
    gpu = read_gpu(device_id)
    return EngineTarget(gpu.name, gpu.driver, _tensorrt_version())


def with_defaults(
    providers: ExecutionProviders,
    artifact: Path,
    shapes: Sequence[Shape],
    target: Callable[[int], EngineTarget] = read_target,
) -> ExecutionProviders:
    """The same providers with the options that the settings leave open.

    Args:
        providers: as the settings name them.
        artifact: directory of the encoder; engines lie beside it.
        shapes: those of the lanes.
        target: what engines are built for, by number of the device.

    Raises:
        ExecutionProviderError: TensorRT is wanted and cannot be had.
    """

    def defaults(position: int, provider: ExecutionProvider) -> dict[str, str]:
        if provider.name == CUDA:
            return CUDA_OPTIONS if position else CUDA_FIRST_OPTIONS
        if provider.name != TENSORRT:
            return {}
        try:
            built_for = target(int(provider.options.get("device_id", "0")))
        except ExecutionProviderError:
            if providers.allow_fallback:  # to what the session is then started with
                return {}
            raise
        return tensorrt_options(engine_directory(artifact, built_for, shapes), shapes)

    wanted = tuple(
        replace(one, options=defaults(position, one) | dict(one.options))
        for position, one in enumerate(providers.wanted)
    )
    return replace(providers, wanted=wanted)


def tensorrt_options(engines: Path, shapes: Sequence[Shape]) -> dict[str, str]:
    """Options by which an engine for these shapes is built into a directory, or taken from there.

    One profile spans them all: onnxruntime builds engines of several and then runs the first alone (#31624).
    """
    least, most = profile_range(shapes)
    best = Shape(most.batch, least.length)  # what full load consists of
    return TENSORRT_OPTIONS | {
        ENGINE_PATH: str(engines),
        "trt_timing_cache_path": str(engines),
        "trt_profile_min_shapes": _profile(least),
        "trt_profile_opt_shapes": _profile(best),
        "trt_profile_max_shapes": _profile(most),
    }


@contextmanager
def engines_built(providers: ExecutionProviders, interval_s: float = 5.0) -> Iterator[None]:
    """Log around the opening of a session whether its TensorRT engine is at hand or built, and for how long by now.

    onnxruntime builds it in there, and says nothing before it is done.
    """
    paths = [one.options[ENGINE_PATH] for one in providers.wanted if ENGINE_PATH in one.options]
    if not paths:
        yield
        return
    [path] = paths
    if any(Path(path).glob("*.engine")):
        logger.info("the TensorRT engine is taken from %s", path)
        yield
        return
    from terminal import repeatedly  # noqa: PLC0415 - of all this alone needs rich

    started = monotonic()
    logger.info("a TensorRT engine is built into %s, which takes minutes", path)
    with repeatedly(interval_s, lambda s: logger.info("a TensorRT engine is built into %s: %.0f s so far", path, s)):
        yield
    logger.info("a TensorRT engine was built into %s in %.0f s", path, monotonic() - started)


def profile_range(shapes: Sequence[Shape]) -> tuple[Shape, Shape]:
    """The least and the largest shape of a grid."""
    return min(shapes), max(shapes)


def engine_directory(artifact: Path, target: EngineTarget, shapes: Sequence[Shape]) -> Path:
    """Where the engines of an artifact lie that fit a target and a range of shapes; created if need be."""
    least, most = profile_range(shapes)
    span = f"{least.batch}x{least.length}-{most.batch}x{most.length}"
    name = f"{target.gpu}-driver-{target.driver}-tensorrt-{target.tensorrt}-{span}"
    directory = artifact.with_name(f"{artifact.name}.engines") / re.sub(r"[^A-Za-z0-9.]+", "-", name)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExecutionProviderError(
            f"{directory}: TensorRT's engines cannot be kept there: {error.strerror}"
        ) from error
    return directory


def _profile(shape: Shape) -> str:
    return ",".join(f"{name}:{shape.batch}x{shape.length}" for name in INPUT_NAMES)


def _tensorrt_version() -> str:
    """Of the library that onnxruntime will find.

    Raises:
        ExecutionProviderError: there is none.
    """
    for name in LIBRARIES:
        try:
            version = int(ctypes.CDLL(name).getInferLibVersion())
        except OSError:
            continue
        return f"{version // 10_000}.{version // 100 % 100}.{version % 100}"
    raise ExecutionProviderError(
        f"TensorRT is not installed, or not where libraries are looked for: none of {', '.join(LIBRARIES)} can be"
        " loaded; put its directory into LD_LIBRARY_PATH, or name CUDAExecutionProvider alone"
    )
