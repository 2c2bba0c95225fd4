"""The check of a GPU: every part of it runs here too, on the CPU in small."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import gpu_check, gpu_timing, gpu_torch
from benchmarks.gpu_artifacts import write_encoder
from benchmarks.gpu_bars import hold_against_bars
from benchmarks.gpu_check import Part, check_modules, find_gpu, parts_of, run_part
from benchmarks.gpu_models import BERTS, QWENS, STUDENT, TEACHER, ModelShape, write_bert
from benchmarks.gpu_parity import compare, measure_parity
from benchmarks.gpu_retrieve import Plan, Trial, _search, bisect, join
from benchmarks.gpu_timing import Clock, OutOfTimeError, describe, time_berts, time_runs
from benchmarks.gpu_torch import COMPILED, EAGER, GRAPHS, ratios, time_qwens
from benchmarks.gpu_watch import gpu_means, looked_at_gpu, stage_means
from service.execution_providers import ExecutionProviderError
from service.gpu import Gpu, GpuLoad, read_gpu
from service.session import EncoderSession
from service.settings import load_settings
from service.shapes import Shape
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
TINY = ModelShape("tiny", "bert", 2, 32, 64, 4, 4, 8, 2_000)
TINY_QWEN = ModelShape("tiny", "qwen3", 3, 32, 48, 4, 2, 8, 100)
H100 = "NVIDIA H100 80GB HBM3"
LONG = 600.0
SIZES = (Shape(1, 8), Shape(4, 8))


def has_gpu() -> bool:
    try:
        read_gpu(0)
    except ExecutionProviderError:
        return False
    return True


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch):
    """Few runs of few shapes."""
    monkeypatch.setattr(gpu_timing, "SHAPES", SIZES)
    monkeypatch.setattr(gpu_timing, "SECONDS", 0.01)


@pytest.mark.skipif(has_gpu(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so_in_one_sentence_and_exits_with_2():
    command = [sys.executable, "-m", "benchmarks.gpu_check"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("No GPU can be checked: ")
    assert result.stderr.count("\n") == 1


BARE = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
ABSENT = set("onnx onnxruntime torch transformers pydantic pydantic_settings pynvml rich typer uvicorn uvloop".split())
ABSENT |= set("fastapi hnswlib httptools httpx orjson prometheus_client tokenizers watchfiles yaml".split())
sys.meta_path.insert(0, Absent())
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in ABSENT else found(name, package)
from benchmarks import gpu_check
gpu_check._ask_driver = lambda: "NVIDIA H200, 580.65.06"
sys.argv = ["gpu_check"]
gpu_check.main()
"""


def test_with_numpy_alone_each_part_says_what_it_needs():
    command = [sys.executable, "-c", BARE]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    report = json.loads(result.stdout)
    assert (report["gpu"], report["driver"]) == ("NVIDIA H200", "580.65.06")
    assert report["bars"]["retrieve_per_second_at_p99_10_ms"]["met"] is None
    left_out = report["left_out"]
    assert left_out["onnxruntime"] == left_out["parity"] == "needs onnx, onnxruntime, not installed here"
    assert left_out["torch"] == "needs torch, transformers, not installed here"
    assert left_out["retrieve"].startswith("needs onnx, onnxruntime, fastapi, hnswlib, ")


def test_a_gpu_is_found_by_the_drivers_own_program_too(monkeypatch: pytest.MonkeyPatch):
    def none(_: int) -> Gpu:
        raise ExecutionProviderError("the package nvidia-ml-py is missing")

    monkeypatch.setattr(gpu_check, "read_gpu", none)
    assert find_gpu(lambda: "NVIDIA H200, 580.65.06\nNVIDIA H200, 580.65.06\n") == Gpu("NVIDIA H200", "580.65.06")
    for says in ("", "No devices were found"):
        with pytest.raises(ExecutionProviderError, match="nvidia-ml-py"):
            find_gpu(lambda says=says: says)


def arguments(**given: object) -> Any:
    return type("Arguments", (), {"encoder": None, "fp32_encoder": None, "index": None} | given)()


def test_the_parts_share_less_than_eight_minutes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gpu_check, "_has_tensorrt", lambda: True)
    parts = parts_of(arguments(), H100)
    assert [part.name for part in parts] == ["parity", "onnxruntime", "torch", "retrieve", "tensorrt"]
    assert sum(part.seconds for part in parts) < 480


def test_a_part_that_overruns_or_fails_leaves_what_it_has():
    report: dict[str, Any] = {"seconds": {}, "left_out": {}}

    def slow(found: list[int], clock: Clock) -> None:
        found.append(1)
        clock.check()
        found.append(2)

    def odd(found: list[int], _: Clock) -> None:
        found.append(1)
        raise ValueError("what")

    run_part(report, Part("slow", -1, (), slow, list))
    run_part(report, Part("odd", LONG, (), odd, list))
    run_part(report, Part("needy", LONG, ("json", "no_such_module"), odd, list))
    run_part(report, Part("good", LONG, ("json",), slow, list))
    assert [report[name] for name in ("slow", "odd", "needy", "good")] == [[1], [1], [], [1, 2]]
    assert report["left_out"].keys() == {"slow", "odd", "needy"}
    assert "its share of the time" in report["left_out"]["slow"]
    assert report["left_out"]["odd"] == "ValueError: what"
    assert report["left_out"]["needy"] == "needs no_such_module, not installed here"
    assert report["seconds"].keys() == {"slow", "odd", "needy", "good"}
    check_modules(("json",))


# --- models ----------------------------------------------------------------------------------------------------------


def test_shapes_have_the_sizes_that_their_makers_state():
    """In millions: MiniLM-L6 22.7, Qwen3-Embedding 595.8 and 4,022, the paper's student 189.9; without norms."""
    millions = {shape.name: shape.weights / 1e6 for shape in (*BERTS, *QWENS)}
    assert millions["minilm-6-layers"] == pytest.approx(22.4, abs=0.1)
    assert millions["qwen3-embedding-0.6b"] == pytest.approx(595.8, abs=0.2)
    assert millions["qwen3-embedding-4b"] == pytest.approx(4_022, abs=2)
    assert millions["qwen3-190m-4-layers"] == pytest.approx(189.9, abs=0.1)


def test_operations_and_bytes_are_those_of_a_count_by_hand():
    matrices = 2 * (4 * 32 * 32 + 2 * 32 * 64)
    assert TINY.layers * TINY.layer_weights == matrices
    assert (
        TINY.operations(3, 5) == 2 * 3 * 5 * matrices + 2 * 3 * 4 * (2 * 5 * 5 * 8) * 2
    )  # heads × (QK and AV), layers
    assert TINY.bytes_read(3, 5) == 2 * matrices + 2 * 3 * 5 * 32


@pytest.mark.parametrize("fp16", [True, False])
def test_both_kinds_of_graph_are_the_same_encoder(fp16: bool, tmp_path: Path):
    ids, mask = np.arange(10).reshape(2, 5), np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    found = []
    for fused in (True, False):
        write_bert(TINY, tmp_path / "model.onnx", fused=fused, fp16=fp16)
        session = EncoderSession(tmp_path / "model.onnx")
        embeddings = session.run(ids, mask)
        assert (embeddings.shape, embeddings.dtype) == ((2, 32), np.float32)
        np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=2e-3)
        np.testing.assert_allclose(session.run(ids[1:, :2], mask[1:, :2])[0], embeddings[1], atol=5e-3)
        found.append(embeddings)
    np.testing.assert_allclose(found[0], found[1], atol=5e-3 if fp16 else 1e-5)


# --- timing ----------------------------------------------------------------------------------------------------------


def test_encoders_are_timed_through_the_bound_runs_of_the_service():
    rows: list[dict[str, Any]] = []
    time_berts(rows, Clock(LONG), "cpu", H100, models=[TINY])
    assert [(row["batch"], row["tokens"]) for row in rows] == [(4, 8), (1, 8)]
    for row in rows:
        assert 0 < row["p50_ms"] <= row["p99_ms"]
        assert row["queries_per_second"] == pytest.approx(1e3 * row["batch"] / row["p50_ms"], rel=0.01)
    with pytest.raises(OutOfTimeError):
        time_berts(rows, Clock(-1), "cpu", H100, models=[TINY])


def test_shares_are_of_what_the_vendor_states():
    row = describe(TINY, Shape(1, 8), "r", [0.001], H100)
    assert row["memory_share"] == round(TINY.bytes_read(1, 8) / 0.001 / 3.35e12, 4)
    assert "memory_share" not in describe(TINY, Shape(1, 8), "r", [0.001], "another GPU")


def test_runs_are_timed_after_the_first_ones():
    calls: list[int] = []
    seconds = time_runs(lambda: calls.append(0))
    assert len(calls) == len(seconds) + 5


def test_qwen_is_timed_eagerly_and_compiled_once_for_all_of_its_layers(monkeypatch: pytest.MonkeyPatch):
    compiled: list[int] = []

    def count(graph: Any, _: Any) -> Any:
        compiled.append(0)
        return graph.forward

    monkeypatch.setattr(gpu_torch, "COMPILED_SHAPES", (Shape(1, 8), Shape(2, 8)))
    found: dict[str, Any] = {}
    time_qwens(found, Clock(LONG), "cpu", H100, models=[TINY_QWEN], shapes=SIZES, backend=count)
    assert found["left_out"] == {}
    assert [row["runtime"] for row in found["rows"]] == [EAGER, EAGER, GRAPHS, GRAPHS, COMPILED, COMPILED]
    assert len(compiled) == 2  # shapes, whatever the number of layers


def test_a_way_that_fails_leaves_the_others(monkeypatch: pytest.MonkeyPatch):
    def fail(*_: Any) -> Any:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(gpu_torch, "COMPILED_SHAPES", SIZES)
    found: dict[str, Any] = {}
    time_qwens(found, Clock(LONG), "cpu", H100, models=[TINY_QWEN], shapes=SIZES, backend=fail)
    assert [row["runtime"] for row in found["rows"]] == [EAGER, EAGER, GRAPHS, GRAPHS]
    [(name, reason)] = found["left_out"].items()
    assert name == f"tiny, {COMPILED}"
    assert "no compiler" in reason
    with pytest.raises(OutOfTimeError):
        time_qwens(found, Clock(-1), "cpu", H100, models=[TINY_QWEN])


def test_a_ratio_is_of_equal_batches_and_runtimes():
    def row(name: str, runtime: str, ms: float, batch: int = 8) -> dict[str, object]:
        return {"model": name, "runtime": runtime, "batch": batch, "tokens": 16, "p50_ms": ms}

    rows = [row(TEACHER.name, "eager", 60.0), row(TEACHER.name, "graphs", 27.0)]
    rows += [row(STUDENT.name, "eager", 3.0), row(STUDENT.name, "graphs", 1.0), row("other", "eager", 9.0)]
    rows += [row(STUDENT.name, "eager", 1.0, batch=64)]  # whose teacher was not reached
    assert [(one["runtime"], one["times_faster"]) for one in ratios(rows)] == [("eager", 20.0), ("graphs", 27.0)]


# --- parity ----------------------------------------------------------------------------------------------------------


def test_fp16_in_lanes_is_close_to_fp32_with_random_weights():
    found: dict[str, Any] = {}
    measure_parity(found, Clock(LONG), ["cpu", "cuda"], None, None, shape=TINY)
    assert found["weights"] == "random"
    assert found["CPUExecutionProvider"]["cosine_min"] > 0.999
    if not has_gpu():
        assert "not in the installed onnxruntime" in found["CUDAExecutionProvider"]["left_out"]


def test_parity_of_artifacts_runs_them_as_the_service_does(tmp_path: Path):
    write_encoder(tmp_path / "encoder", TINY)
    found: dict[str, Any] = {}
    measure_parity(found, Clock(LONG), ["cpu"], tmp_path / "encoder", None)
    assert found["CPUExecutionProvider"]["cosine_min"] > 0.999
    assert found["CPUExecutionProvider"]["overlap_at_100"] > 0.9


def test_equal_embeddings_overlap_wholly_and_reversed_ones_do_not():
    rng = np.random.default_rng(0)
    embeddings = rng.standard_normal((300, 16)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    same = compare(embeddings, embeddings)
    assert (same["cosine_min"], same["overlap_at_100"]) == (pytest.approx(1, abs=1e-6), 1.0)
    assert compare(embeddings, -embeddings)["overlap_at_100"] < 0.1


# --- /retrieve -------------------------------------------------------------------------------------------------------


def trial(rate: float, p99_ms: float, failed: int = 0) -> Trial:
    return Trial(rate, p99_ms / 2, p99_ms, 1_000, failed, 0.2)


def test_the_capacity_is_the_largest_rate_within_the_bound():
    def trial_at(rate: float) -> Trial:
        return trial(rate, 5.0 if rate <= 12_345 else 50.0)

    plan, trials = Plan(), []
    *_, capacity = bisect(trial_at, 10.0, trials, 0.0, plan)
    assert capacity <= 12_345 < capacity + plan.most_rate / 32
    assert len(trials) == 5
    assert list(bisect(lambda rate: trial(rate, 1.0, failed=1), 10.0, trials, 0.0, plan)) == [0] * 5
    assert list(bisect(lambda rate: trial(rate, 99.0), 10.0, trials, 9_000.0, plan)) == [9_000.0] * 5


@pytest.mark.parametrize(
    ("p99_ms", "seconds", "capacities"),
    [(99.0, -1, [None]), (99.0, LONG, [0, 0]), (None, LONG, [0, 0]), (1.0, -1, [16_000.0])],
    ids=["time is up", "too slow", "no answers", "time is up after a good one"],
)
def test_a_capacity_is_0_only_where_every_trial_said_so(
    p99_ms: float | None, seconds: float, capacities: list[float | None]
):
    found: dict[str, Any] = {}
    running: Any = type("Running", (), {"offer": lambda _, rate: Trial(rate, p99_ms, p99_ms, 10, 0, 0.1)})()
    with contextlib.suppress(OutOfTimeError):
        _search(found, Clock(seconds), running, Plan())
    assert [entry["capacity"] for entry in found.values()] == capacities
    assert "Infinity" not in json.dumps(found)
    assert hold_against_bars({"retrieve": found})["retrieve_per_second_at_p99_10_ms"]["found"] == capacities[0]


def test_what_the_generators_saw_is_joined():
    joined = join(100.0, [(np.array([0.001] * 50), 50, 0.2), (np.array([0.003] * 48), 50, 0.9)])
    assert (joined.sent, joined.failed, joined.generator_busy_share) == (100, 2, 0.9)
    assert (joined.p50_ms, joined.p99_ms) == (pytest.approx(1), pytest.approx(3))
    assert join(1.0, [(np.array([]), 3, 0.1)]).p99_ms is None


def test_stages_are_means_between_two_scrapes():
    def scrape(requests: int, seconds: float) -> dict[str, float]:
        labels = '{stage="encode"}'
        durations = {"sum": seconds, "count": requests}
        stages = {f"hlm_stage_duration_seconds_{end}{labels}": value for end, value in durations.items()}
        return stages | {"hlm_batch_size_sum": 3.0 * requests, "hlm_batch_size_count": requests}

    means = stage_means(scrape(100, 1.0), scrape(300, 1.4))
    assert means["stages_ms"]["encode"] == 2.0
    assert means["stages_ms"]["search"] is None
    assert means["queries_a_batch"] == 3.0


def test_the_gpu_is_watched_while_a_load_runs():
    looks = iter([GpuLoad(10, 100, 0.5, 40.0), GpuLoad(30, 100, 0.7, 50.0)])

    def look() -> GpuLoad:
        try:
            return next(looks)
        except StopIteration:
            raise ExecutionProviderError("gone") from None

    with looked_at_gpu(look, 0.001) as loads:
        wait_until(lambda: len(loads) == 2)
    seen = gpu_means(loads)["gpu"]
    assert seen == {
        "utilization_mean": 0.6,
        "utilization_max": 0.7,
        "memory_used_bytes": 30,
        "temperature_celsius": 50.0,
        "looks": 2,
    }
    assert gpu_means([]) == {"gpu": "not seen"}


def test_the_example_for_a_gpu_is_read():
    settings = load_settings(ROOT / "config" / "serve.gpu.yaml", {})
    lanes = settings.inference.providers(settings.batching.max_batch_size).lanes
    assert lanes is not None
    assert (lanes.batch_buckets[-1], lanes.batches_in_flight) == (64, 2)
    assert settings.inference.gpu == 0
    assert settings.server.front_processes == 3
