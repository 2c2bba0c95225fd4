"""The capacity search of the GPU check against a real server on the CPU, in small, with artifacts that it makes."""

import os
from typing import Any

import pytest

from benchmarks import gpu_artifacts, gpu_retrieve
from benchmarks.errors import BenchmarkError
from benchmarks.gpu_models import ModelShape
from benchmarks.gpu_retrieve import Plan, measure_retrieve
from benchmarks.gpu_timing import Clock, OutOfTimeError

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs a core for the server and one for its clients"),
]
SMALL = ModelShape("small", "bert", 1, 64, 128, 4, 4, 16, 2_000)
ON_CPU = {
    "HLM_INFERENCE__EXECUTION_PROVIDERS": '["CPUExecutionProvider"]',
    "HLM_INFERENCE__PADDING_BUCKETS": "[32]",
    "HLM_BATCHING__MAX_BATCH_SIZE": "4",
    "HLM_SERVER__FRONT_PROCESSES": "1",
}
PATIENT_MS = 8_000  # nobody knows how fast this machine is
PLAN = Plan(1, seconds=0.5, steps=2, most_rate=40.0, swaps=2, ads=300, settings=ON_CPU, timeout_ms=PATIENT_MS)


@pytest.fixture(autouse=True)
def in_small(monkeypatch: pytest.MonkeyPatch):
    write_encoder = gpu_artifacts.write_encoder
    monkeypatch.setattr(gpu_artifacts, "write_encoder", lambda target: write_encoder(target, SMALL))
    monkeypatch.setattr(gpu_retrieve, "BOUNDS_MS", (PATIENT_MS, PATIENT_MS + 1_000))
    monkeypatch.setattr(gpu_retrieve, "SWAP_S", 2.0)


def test_capacity_stages_and_a_swap_under_load():
    found: dict[str, Any] = {}
    measure_retrieve(found, Clock(600), None, None, PLAN)
    assert found["artifacts"] == "random weights, made-up ads"
    assert found["front_processes"] == 1
    assert found["cores"]["generators"] == 1
    assert found["p99_8000_ms"]["trials"][0]["rate"] == 20
    assert found["p99_9000_ms"]["capacity"] >= found["p99_8000_ms"]["capacity"] > 0
    at_capacity = found["at_capacity"]
    assert at_capacity["failed"] == 0
    assert all(ms is not None for ms in at_capacity["stages_ms"].values())
    assert at_capacity["queries_a_batch"] >= 1
    assert found["swap"]["swaps"] == 2
    assert found["swap"]["requests"] > 0
    assert found["swap"]["failed"] == 0


def test_what_was_found_until_time_is_up_is_kept():
    found: dict[str, Any] = {}
    with pytest.raises(OutOfTimeError):
        measure_retrieve(found, Clock(-1), None, None, PLAN)
    assert len(found["p99_8000_ms"]["trials"]) == 1


def test_what_cannot_be_measured_is_named(tmp_path: Any):
    with pytest.raises(BenchmarkError, match="--encoder and --index belong together"):
        measure_retrieve({}, Clock(1), tmp_path, None)
    with pytest.raises(BenchmarkError, match=r"needs 2000 cores, half of them for clients"):
        measure_retrieve({}, Clock(1), None, None, Plan(generators=1_000))
