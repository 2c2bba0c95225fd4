"""What devices are told: options, TensorRT's profile, and where its engines lie."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from service.device_options import (
    EngineTarget,
    engine_directory,
    engines_built,
    profile_range,
    read_target,
    tensorrt_options,
    with_defaults,
)
from service.execution_providers import CPU, ExecutionProvider, ExecutionProviderError, ExecutionProviders
from service.shapes import Shape, shapes_of
from tests.waiting import wait_until

SHAPES = shapes_of((1, 4, 16), (8, 16, 64), 256)
H100 = EngineTarget("NVIDIA H100 80GB HBM3", "580.65.06", "10.14.1")
CUDA, TENSORRT = ExecutionProvider("CUDAExecutionProvider"), ExecutionProvider("TensorrtExecutionProvider")


def options_of(*wanted: ExecutionProvider, artifact: Path) -> list[dict[str, str]]:
    complete = with_defaults(ExecutionProviders(wanted), artifact, SHAPES, lambda _: H100)
    assert [one.name for one in complete.wanted] == [one.name for one in wanted]
    return [dict(one.options) for one in complete.wanted]


def test_cuda_takes_what_it_needs_of_the_memory_and_captures_its_runs(tmp_path: Path):
    [cuda] = options_of(CUDA, artifact=tmp_path)
    assert cuda == {"arena_extend_strategy": "kSameAsRequested", "enable_cuda_graph": "1"}


def test_the_settings_have_the_last_word(tmp_path: Path):
    [cuda] = options_of(ExecutionProvider(CUDA.name, {"enable_cuda_graph": "0", "device_id": "1"}), artifact=tmp_path)
    assert cuda == {"arena_extend_strategy": "kSameAsRequested", "enable_cuda_graph": "0", "device_id": "1"}


def test_behind_tensorrt_cuda_captures_nothing(tmp_path: Path):
    tensorrt, cuda = options_of(TENSORRT, CUDA, artifact=tmp_path / "minilm")
    assert cuda == {"arena_extend_strategy": "kSameAsRequested"}
    assert (tensorrt["trt_fp16_enable"], tensorrt["trt_layer_norm_fp32_fallback"]) == ("1", "1")


def test_the_cpu_is_told_nothing(tmp_path: Path):
    assert options_of(ExecutionProvider(CPU), artifact=tmp_path) == [{}]
    assert not list(tmp_path.iterdir())


def test_the_profile_spans_exactly_the_shapes_of_the_lanes(tmp_path: Path):
    assert profile_range(SHAPES) == (Shape(1, 8), Shape(16, 256))
    options = tensorrt_options(tmp_path, SHAPES)
    for name, size in (("min", "1x8"), ("opt", "16x8"), ("max", "16x256")):
        expected = f"input_ids:{size},attention_mask:{size},token_type_ids:{size}"
        assert options[f"trt_profile_{name}_shapes"] == expected


def test_engines_lie_beside_the_artifact_under_all_that_they_depend_on(tmp_path: Path):
    artifact = tmp_path / "minilm-fp16"
    directory = engine_directory(artifact, H100, SHAPES)
    name = "NVIDIA-H100-80GB-HBM3-driver-580.65.06-tensorrt-10.14.1-1x8-16x256"
    assert directory == tmp_path / "minilm-fp16.engines" / name
    assert directory.is_dir()
    [tensorrt] = options_of(TENSORRT, artifact=artifact)
    assert tensorrt["trt_engine_cache_path"] == tensorrt["trt_timing_cache_path"] == str(directory)
    others = [
        engine_directory(artifact, EngineTarget("NVIDIA H200", H100.driver, H100.tensorrt), SHAPES),
        engine_directory(artifact, EngineTarget(H100.gpu, "590.1", H100.tensorrt), SHAPES),
        engine_directory(artifact, EngineTarget(H100.gpu, H100.driver, "10.15.0"), SHAPES),
        engine_directory(artifact, H100, shapes_of((1, 8), (8,), 256)),
    ]
    assert len({directory, *others}) == 5


def test_where_engines_cannot_be_kept_is_said(tmp_path: Path):
    (tmp_path / "minilm.engines").write_text("a file")
    with pytest.raises(ExecutionProviderError, match=r"minilm\.engines/.*: TensorRT's engines cannot be kept there"):
        engine_directory(tmp_path / "minilm", H100, SHAPES)


def test_without_tensorrt_another_stands_in_only_where_it_may(tmp_path: Path):
    def none_here(_: int) -> EngineTarget:
        raise ExecutionProviderError("TensorRT is not installed")

    strict = ExecutionProviders((TENSORRT, CUDA))
    with pytest.raises(ExecutionProviderError, match="TensorRT is not installed"):
        with_defaults(strict, tmp_path, SHAPES, none_here)
    lenient = with_defaults(replace(strict, allow_fallback=True), tmp_path, SHAPES, none_here)
    assert dict(lenient.wanted[0].options) == {}


def test_without_a_gpu_nothing_is_built():
    with pytest.raises(ExecutionProviderError, match=r"GPU|nvidia-ml-py"):
        read_target(99)


def logged_around(artifact: Path, caplog: pytest.LogCaptureFixture) -> list[str]:
    """What is logged while a session is opened, which takes until there are three lines or nothing to say."""
    complete = with_defaults(ExecutionProviders((TENSORRT,)), artifact, SHAPES, lambda _: H100)
    caplog.clear()
    with caplog.at_level("INFO"), engines_built(complete, 0.001):
        wait_until(lambda: "taken" in caplog.text or len(caplog.messages) >= 3)
    return caplog.messages


def test_an_engine_that_is_built_is_logged_again_and_again(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    first, *between, last = logged_around(tmp_path / "minilm", caplog)
    path = engine_directory(tmp_path / "minilm", H100, SHAPES)
    assert first == f"a TensorRT engine is built into {path}, which takes minutes"
    building = re.compile(re.escape(f"a TensorRT engine is built into {path}: ") + r"\d+ s so far")
    assert between
    assert all(map(building.fullmatch, between))
    assert re.fullmatch(re.escape(f"a TensorRT engine was built into {path} in ") + r"\d+ s", last)
    (path / "a.engine").touch()
    assert logged_around(tmp_path / "minilm", caplog) == [f"the TensorRT engine is taken from {path}"]


def test_without_tensorrt_no_engine_is_logged(caplog: pytest.LogCaptureFixture):
    with caplog.at_level("INFO"), engines_built(ExecutionProviders((CUDA,))):
        pass
    assert caplog.messages == []
