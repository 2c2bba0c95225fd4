"""What the GPU path has to reach on an H100 with 16 cores, against a report of `benchmarks.gpu_check`: pure."""

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.gpu_models import MINILM
from benchmarks.gpu_torch import EAGER, GRAPHS

PAPERS_BATCH = (64, 32)
"""Queries and tokens: what the paper's latencies fit (its batch is not published)."""

Report = Mapping[str, Any]


def hold_against_bars(report: Report) -> dict[str, dict[str, Any]]:
    """By bar what was found, what was wanted, and whether it is met; None where that part has no figure."""
    bars: dict[str, tuple[Any, Any, Callable[[Any, Any], bool]]] = {
        "retrieve_per_second_at_p99_10_ms": (_capacity(report), 15_000, _at_least),
        "failed_in_swaps_under_load": (report.get("retrieve", {}).get("swap", {}).get("failed"), 0, _at_most),
        "minilm_6_layers_p50_ms_at_batch_1": (_slowest_alone(report), 1.0, _at_most),
        "student_to_teacher_latency": (_ratio(report, GRAPHS), 27, _at_least),
        "student_to_teacher_throughput": (_ratio(report, GRAPHS), 20, _at_least),
        "seconds": (report.get("seconds", {}).get("total"), 480, _at_most),
    }
    held = {
        name: {"found": found, "wanted": wanted, "met": None if found is None else meets(found, wanted)}
        for name, (found, wanted, meets) in bars.items()
    }
    held["student_to_teacher_latency"]["eager"] = _ratio(report, EAGER)
    return held


def _at_least(found: float, wanted: float) -> bool:
    return found >= wanted


def _at_most(found: float, wanted: float) -> bool:
    return found <= wanted


def _capacity(report: Report) -> float | None:
    capacity: float | None = report.get("retrieve", {}).get("p99_10_ms", {}).get("capacity")
    return capacity


def _slowest_alone(report: Report) -> float | None:
    """Of the student of six layers, over all numbers of tokens."""
    rows = (row for row in report.get("onnxruntime", ()) if row["model"] == MINILM.name and row["batch"] == 1)
    return max((row["p50_ms"] for row in rows), default=None)


def _ratio(report: Report, runtime: str) -> float | None:
    """At equal batch one ratio is that of latencies and of rates."""
    ratios = report.get("torch", {}).get("student_to_teacher", ())
    at = (one for one in ratios if (one["runtime"], one["batch"], one["tokens"]) == (runtime, *PAPERS_BATCH))
    return next((one["times_faster"] for one in at), None)
