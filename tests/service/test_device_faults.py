"""Faults of a device: told apart by onnxruntime's messages, and what becomes of the batch, and of readiness."""

from collections.abc import Callable

import numpy as np
import pytest

from service.device_faults import DeviceFaultError, DeviceLostError, DeviceOutOfMemoryError, fault_of
from service.encoder import Encoder
from service.execution_providers import CPU, ExecutionProvider, ExecutionProviders, LanePolicy
from service.session import BoundRun
from tests.service.small_artifacts import SmallArtifacts

ARENA = (
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running Attention node. Status"
    " Message: bfc_arena.cc:376 AllocateRawInternal Failed to allocate memory for requested buffer of size 939524096"
)
CUDA_2 = "CUDA failure 2: out of memory ; GPU=0 ; hostname=h ; file=cuda_stream_handle.cc ; line=175"
CUDA_700 = "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=h ; line=446"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (ARENA, DeviceOutOfMemoryError),
        (CUDA_2, DeviceOutOfMemoryError),
        ("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0", DeviceOutOfMemoryError),
        (CUDA_700, DeviceLostError),
        ("CUDA error 719: unspecified launch failure", DeviceLostError),
        ("CUDA failure 214: uncorrectable ECC error encountered", DeviceLostError),
        ("CUDA failure 100: no CUDA-capable device is detected", DeviceLostError),
        ("GPU 0: GPU has fallen off the bus", DeviceLostError),
        ("CUDA failure 2: out of memory ; then CUDA failure 700: an illegal memory access", DeviceLostError),
        ("CUDA failure 1: invalid argument ; GPU=0", None),
        ("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid dimensions for input", None),
    ],
)
def test_faults_are_told_by_what_onnxruntime_says(message: str, expected: type[DeviceFaultError] | None):
    fault = fault_of(RuntimeError(message))
    assert type(fault) is (expected or type(None))
    if fault is not None:
        assert message in str(fault)


def fail_with(message: str) -> Callable[[BoundRun], np.ndarray]:
    """A run that fails as a device does."""

    def fail(_: BoundRun) -> np.ndarray:
        raise RuntimeError(message)

    return fail


@pytest.fixture
def encoder(small: SmallArtifacts) -> Encoder:
    lanes = LanePolicy((1, 2, 4), (8,), 1)
    return Encoder.load(small.encoder, providers=ExecutionProviders((ExecutionProvider(CPU),), lanes=lanes))[0]


@pytest.mark.parametrize(
    ("message", "expected"), [(ARENA, DeviceOutOfMemoryError), (CUDA_700, DeviceLostError), ("odd", RuntimeError)]
)
def test_a_lane_says_what_failed_and_serves_the_next_batch(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch, message: str, expected: type[Exception]
):
    ids = encoder.tokenize("drill")
    with monkeypatch.context() as patch:
        patch.setattr(BoundRun, "_run", fail_with(message))
        with pytest.raises(expected):
            encoder.encode([ids] * 4)
    assert encoder.encode([ids]).shape == (1, encoder.space.dim)
