"""What a server and its GPU did while a load ran."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from artifacts.errors import HlmError
from service.gpu import GpuLoad, read_load

STAGES = ("tokenize", "queue", "encode", "search", "total")


@contextmanager
def looked_at_gpu(
    look: Callable[[], GpuLoad] = lambda: read_load(0), interval_s: float = 0.2
) -> Iterator[list[GpuLoad]]:
    """What the driver says of the GPU now and then, while the block runs; nothing where there is none."""
    loads: list[GpuLoad] = []
    done = threading.Event()

    def run() -> None:
        while not done.wait(interval_s):
            try:
                loads.append(look())
            except HlmError:
                return

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield loads
    finally:
        done.set()
        thread.join()


def gpu_means(loads: Sequence[GpuLoad]) -> dict[str, Any]:
    """Of what was seen of the GPU during a load."""
    if not loads:
        return {"gpu": "not seen"}
    return {
        "gpu": {
            "utilization_mean": round(float(np.mean([load.utilization for load in loads])), 3),
            "utilization_max": max(load.utilization for load in loads),
            "memory_used_bytes": max(load.memory_used_bytes for load in loads),
            "temperature_celsius": max(load.temperature_celsius for load in loads),
            "looks": len(loads),
        }
    }


def stage_means(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, Any]:
    """Milliseconds a request in each stage between two scrapes, and queries a batch."""

    def mean(name: str, labels: str = "") -> float | None:
        total, count = (
            after.get(f"{name}_{end}{labels}", 0) - before.get(f"{name}_{end}{labels}", 0) for end in ("sum", "count")
        )
        return round(total / count, 6) if count else None

    stages = {stage: mean("hlm_stage_duration_seconds", f'{{stage="{stage}"}}') for stage in STAGES}
    return {
        "stages_ms": {stage: None if value is None else round(1e3 * value, 3) for stage, value in stages.items()},
        "queries_a_batch": mean("hlm_batch_size"),
    }
