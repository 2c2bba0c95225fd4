"""The GPU as its driver sees it, through NVML: name, memory, utilisation, temperature."""

from dataclasses import dataclass
from typing import Any

from service.execution_providers import ExecutionProviderError


@dataclass(frozen=True, slots=True)
class Gpu:
    """What engines are built for."""

    name: str
    driver: str


@dataclass(frozen=True, slots=True)
class GpuLoad:
    """What a look at it finds."""

    memory_used_bytes: int
    """By all processes."""
    memory_total_bytes: int
    utilization: float
    """Share of the last moments, a sixth of a second to a second, in which it computed anything."""
    temperature_celsius: float


def read_gpu(device_id: int) -> Gpu:
    """The GPU of a number.

    Raises:
        ExecutionProviderError: there is none, its driver does not answer, or nvidia-ml-py is missing.
    """
    nvml, handle = _open(device_id)
    try:
        return Gpu(nvml.nvmlDeviceGetName(handle), nvml.nvmlSystemGetDriverVersion())
    except nvml.NVMLError as error:
        raise ExecutionProviderError(f"GPU {device_id}: its driver does not say what it is: {error}") from error


def read_load(device_id: int) -> GpuLoad:
    """What the GPU of a number is doing.

    Raises:
        ExecutionProviderError: it does not answer any more.
    """
    nvml, handle = _open(device_id)
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        return GpuLoad(
            memory.used,
            memory.total,
            nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
            float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
        )
    except nvml.NVMLError as error:
        raise ExecutionProviderError(f"GPU {device_id}: its driver does not answer: {error}") from error


def _open(device_id: int) -> tuple[Any, Any]:
    try:
        import pynvml  # noqa: PLC0415 - of the extra `gpu`
    except ImportError as error:
        raise ExecutionProviderError("the package nvidia-ml-py is missing: install the extra gpu") from error
    try:
        pynvml.nvmlInit()  # counts its callers; the library stays open
        return pynvml, pynvml.nvmlDeviceGetHandleByIndex(device_id)
    except pynvml.NVMLError as error:
        raise ExecutionProviderError(f"GPU {device_id}: no NVIDIA GPU or driver can be had: {error}") from error
