"""The check of a GPU, as far as it goes without one."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gpu_check import compare, describe, ratios, time_bert, time_runs
from benchmarks.gpu_models import BERTS, QWENS, STUDENT, TEACHER, ModelShape, write_bert
from benchmarks.gpu_retrieve import MOST_RATE, Trial, bisect
from service.execution_providers import ExecutionProviderError
from service.gpu import read_gpu
from service.session import EncoderSession
from service.settings import load_settings
from service.shapes import Shape

ROOT = Path(__file__).resolve().parents[2]
TINY = ModelShape("tiny", "bert", 2, 32, 64, 4, 4, 8, 100)


def has_gpu() -> bool:
    try:
        read_gpu(0)
    except ExecutionProviderError:
        return False
    return True


@pytest.mark.skipif(has_gpu(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so_in_one_sentence_and_exits_with_2():
    command = [sys.executable, "-m", "benchmarks.gpu_check"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("No GPU can be checked: ")
    assert result.stderr.count("\n") == 1


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


def test_a_random_graph_is_an_encoder(tmp_path: Path):
    write_bert(TINY, tmp_path / "model.onnx")
    session = EncoderSession(tmp_path / "model.onnx")
    ids, mask = np.arange(10).reshape(2, 5), np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    embeddings = session.run(ids, mask)
    assert (embeddings.shape, embeddings.dtype) == ((2, 32), np.float32)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=2e-3)
    np.testing.assert_allclose(session.run(ids[1:, :2], mask[1:, :2])[0], embeddings[1], atol=5e-3)


def test_shapes_are_timed_through_the_bound_runs_of_the_service():
    rows = time_bert(TINY, "NVIDIA H100 80GB HBM3", on_cpu=True, shapes=(Shape(1, 8), Shape(4, 8)))
    assert [(row["batch"], row["tokens"]) for row in rows] == [(4, 8), (1, 8)]
    for row in rows:
        assert 0 < row["p50_ms"] <= row["p99_ms"]
        assert row["queries_per_second"] == pytest.approx(1e3 * row["batch"] / row["p50_ms"], rel=0.01)


def test_shares_are_of_what_the_vendor_states():
    row = describe(TINY, Shape(1, 8), "r", [0.001], "NVIDIA H100 80GB HBM3")
    assert row["memory_share"] == round(TINY.bytes_read(1, 8) / 0.001 / 3.35e12, 4)
    assert "memory_share" not in describe(TINY, Shape(1, 8), "r", [0.001], "another GPU")


def test_a_ratio_is_of_equal_batches_and_runtimes():
    def row(name: str, runtime: str, ms: float) -> dict[str, object]:
        return {"model": name, "runtime": runtime, "batch": 8, "tokens": 16, "p50_ms": ms}

    rows = [row(TEACHER.name, "eager", 60.0), row(TEACHER.name, "graphs", 27.0)]
    rows += [row(STUDENT.name, "eager", 3.0), row(STUDENT.name, "graphs", 1.0), row("other", "eager", 9.0)]
    assert [(one["runtime"], one["times_faster"]) for one in ratios(rows)] == [("eager", 20.0), ("graphs", 27.0)]


def test_runs_are_timed_after_the_first_ones():
    calls: list[int] = []
    seconds = time_runs(lambda: calls.append(0))
    assert len(calls) == len(seconds) + 5


def test_equal_embeddings_overlap_wholly_and_reversed_ones_do_not():
    rng = np.random.default_rng(0)
    embeddings = rng.standard_normal((300, 16)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    same = compare(embeddings, embeddings)
    assert (same["cosine_min"], same["overlap_at_100"]) == (pytest.approx(1, abs=1e-6), 1.0)
    assert compare(embeddings, -embeddings)["overlap_at_100"] < 0.1


def test_the_capacity_is_the_largest_rate_within_the_bound():
    def trial_at(rate: float) -> Trial:
        return Trial(rate, 5.0 if rate <= 12_345 else 50.0, 1.0, 0.2)

    capacity, trials = bisect(trial_at, 10.0)
    assert capacity <= 12_345 < capacity + MOST_RATE / 32
    assert len(trials) == 5
    assert bisect(lambda rate: Trial(rate, 1.0, 0.99, 0.2), 10.0)[0] == 0  # some were refused


def test_the_example_for_a_gpu_is_read():
    settings = load_settings(ROOT / "config" / "serve.gpu.yaml", {})
    lanes = settings.inference.providers(settings.batching.max_batch_size).lanes
    assert lanes is not None
    assert (lanes.batch_buckets[-1], lanes.batches_in_flight) == (64, 2)
    assert settings.inference.gpu == 0
