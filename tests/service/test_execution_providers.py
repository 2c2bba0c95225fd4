"""What an encoder runs on, and what is said where it cannot."""

from importlib.metadata import PathDistribution
from pathlib import Path

import onnxruntime
import pytest

from service.encoder import Encoder
from service.execution_providers import (
    CPU,
    ExecutionProvider,
    ExecutionProviderError,
    ExecutionProviders,
    LanePolicy,
    check_one_build,
)
from service.settings import load_settings
from tests.service.small_artifacts import SmallArtifacts

CUDA = ExecutionProvider("CUDAExecutionProvider", {"device_id": "0"})
TENSORRT = ExecutionProvider("TensorrtExecutionProvider")
GPU_BUILD = (TENSORRT.name, CUDA.name, CPU)


def test_those_that_are_wanted_are_tried_in_their_order_with_their_options():
    to_try = ExecutionProviders((TENSORRT, CUDA)).to_try(GPU_BUILD)
    assert to_try == [(TENSORRT.name, {}), (CUDA.name, {"device_id": "0"})]


def test_one_that_this_build_lacks_is_an_error_unless_another_may_stand_in():
    wanted = (TENSORRT, CUDA)
    with pytest.raises(ExecutionProviderError, match=r"^Tensorrt.* which has CUDAExec.*, CPUExec.*; install the extra"):
        ExecutionProviders(wanted).to_try((CUDA.name, CPU))
    assert ExecutionProviders(wanted, allow_fallback=True).to_try((CUDA.name, CPU)) == [(CUDA.name, dict(CUDA.options))]
    assert ExecutionProviders(wanted, allow_fallback=True).to_try((CPU,)) == [(CPU, {})]


def test_one_that_did_not_start_is_an_error_unless_another_may_stand_in():
    with pytest.raises(ExecutionProviderError, match=r"^CUDAExecutionProvider could not be started, so .* on CPUExec"):
        ExecutionProviders((CUDA,)).check_running((CPU,))
    ExecutionProviders((CUDA,), allow_fallback=True).check_running((CPU,))
    ExecutionProviders((CUDA,)).check_running((CUDA.name, CPU))


@pytest.mark.skipif(CUDA.name in onnxruntime.get_available_providers(), reason="this build can have a GPU")
def test_no_encoder_falls_back_to_the_cpu_in_silence(small: SmallArtifacts):
    with pytest.raises(ExecutionProviderError, match="CUDAExecutionProvider is not in the installed onnxruntime"):
        Encoder.load(small.encoder, providers=ExecutionProviders((CUDA,)))
    encoder, _ = Encoder.load(small.encoder, providers=ExecutionProviders((CUDA,), allow_fallback=True))
    assert encoder.execution_providers == (CPU,)
    assert encoder.encode([encoder.tokenize("drill")]).shape == (1, encoder.space.dim)


def test_who_stands_in_is_named():
    wanted = ExecutionProviders((TENSORRT, CUDA), allow_fallback=True)
    assert wanted.stand_in((TENSORRT.name, CPU)) is None
    said = wanted.stand_in((CUDA.name, CPU))
    assert said is not None
    assert said.startswith(f"{TENSORRT.name} cannot be had, so {CUDA.name} stands in")


def test_settings_take_names_and_options(tmp_path: Path):
    path = tmp_path / "serve.yaml"
    path.write_text("""
release: {name: r, encoder: e, index: i}
inference:
  execution_providers:
    - {name: TensorrtExecutionProvider, options: {trt_fp16_enable: true, device_id: 0}}
    - CUDAExecutionProvider
  allow_fallback: true
""")
    fp16 = ExecutionProvider(TENSORRT.name, {"trt_fp16_enable": "1", "device_id": "0"})
    lanes = LanePolicy((1, 2, 4, 8), (8, 16, 24, 32), 2)
    expected = ExecutionProviders((fp16, ExecutionProvider(CUDA.name)), allow_fallback=True, lanes=lanes)
    assert load_settings(path, {}).inference.providers(8) == expected


def test_two_builds_side_by_side_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    check_one_build()
    builds = []
    for name in ("onnxruntime", "onnxruntime_gpu"):
        directory = tmp_path / f"{name}-1.31.0.dist-info"
        directory.mkdir()
        (directory / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.31.0\n")
        builds.append(PathDistribution(directory))
    monkeypatch.setattr("service.execution_providers.distributions", lambda: builds)
    with pytest.raises(ExecutionProviderError, match=r"^onnxruntime and onnxruntime-gpu are both installed"):
        check_one_build()
