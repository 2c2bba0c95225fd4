"""A report of the GPU check against what is wanted."""

from typing import Any

from benchmarks.gpu_bars import hold_against_bars
from benchmarks.gpu_torch import EAGER, GRAPHS

REPORT: dict[str, Any] = {
    "onnxruntime": [
        {"model": "minilm-6-layers", "batch": 1, "tokens": 8, "p50_ms": 0.4},
        {"model": "minilm-6-layers", "batch": 1, "tokens": 32, "p50_ms": 1.1},
        {"model": "minilm-6-layers", "batch": 64, "tokens": 32, "p50_ms": 3.0},
        {"model": "mpnet-base", "batch": 1, "tokens": 8, "p50_ms": 2.0},
    ],
    "torch": {
        "student_to_teacher": [
            {"runtime": EAGER, "batch": 64, "tokens": 32, "times_faster": 9.0},
            {"runtime": GRAPHS, "batch": 1, "tokens": 32, "times_faster": 90.0},
            {"runtime": GRAPHS, "batch": 64, "tokens": 32, "times_faster": 25.0},
        ]
    },
    "retrieve": {"p99_10_ms": {"capacity": 16_000.0}, "swap": {"failed": 0}},
    "seconds": {"total": 300.0},
}


def test_each_bar_is_met_or_missed_by_its_own_figure():
    held = hold_against_bars(REPORT)
    assert {name: one["met"] for name, one in held.items()} == {
        "retrieve_per_second_at_p99_10_ms": True,
        "failed_in_swaps_under_load": True,
        "minilm_6_layers_p50_ms_at_batch_1": False,
        "student_to_teacher_latency": False,
        "student_to_teacher_throughput": True,
        "seconds": True,
    }
    assert held["minilm_6_layers_p50_ms_at_batch_1"]["found"] == 1.1
    assert held["student_to_teacher_latency"]["eager"] == 9.0
    failed = {**REPORT, "retrieve": {**REPORT["retrieve"], "swap": {"failed": 1}}}
    assert hold_against_bars(failed)["failed_in_swaps_under_load"]["met"] is False


def test_what_was_left_out_is_neither_met_nor_missed():
    empty = {"onnxruntime": [], "torch": {}, "retrieve": {}, "seconds": {}}
    for report in ({}, empty):
        assert {one["met"] for one in hold_against_bars(report).values()} == {None}
