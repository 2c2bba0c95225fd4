"""How fast encoders of BERT's kind run on a device, through the bound runs that the service makes; and time itself.

A part of `benchmarks.gpu_check` fills what it is given as it goes and asks its clock between two steps, so that one
which takes longer than its share leaves what it has.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from artifacts.errors import HlmError
from benchmarks.errors import BenchmarkError
from benchmarks.gpu_models import BERTS, ModelShape, write_bert
from service.device_options import CUDA_FIRST_OPTIONS, CUDA_OPTIONS, tensorrt_options
from service.execution_providers import CPU, CUDA, TENSORRT, ExecutionProvider, ExecutionProviders
from service.shapes import Shape

SHAPES = tuple(Shape(batch, length) for batch in (1, 4, 8, 16, 32, 64, 128) for length in (8, 16, 32))
FIRST_RUNS = 5
LEAST_RUNS, MOST_RUNS, SECONDS = 10, 400, 0.4
"""Of one shape: 100 runs or more where one takes less than 4 ms."""
RATES = {"H100": (3.35e12, 989e12), "H200": (4.8e12, 989e12), "A100": (2.04e12, 312e12)}
"""Bytes and dense fp16 operations a second that the vendor states, of the SXM kind with 80 GB or more."""

Rows = list[dict[str, Any]]


class OutOfTimeError(BenchmarkError):
    """A part has used up its share of the time."""


class Clock:
    """How long a part may go on."""

    def __init__(self, seconds: float) -> None:
        self._started = perf_counter()
        self._seconds = seconds

    @property
    def left_s(self) -> float:
        """Seconds; below zero afterwards."""
        return self._started + self._seconds - perf_counter()

    def check(self) -> None:
        """Go on.

        Raises:
            OutOfTimeError: not any more.
        """
        if self.left_s < 0:
            raise OutOfTimeError(f"stopped after {self._seconds:.0f} s, its share of the time; what it has is reported")


def time_berts(rows: Rows, clock: Clock, device: str, gpu: str, models: Sequence[ModelShape] = BERTS) -> None:
    """Time encoders with random weights on `cuda`, `tensorrt` or `cpu`, the largest batch of each first."""
    for shape in models:
        with tempfile.TemporaryDirectory(prefix="hlm-gpu-") as scratch:
            clock.check()
            path = Path(scratch) / "model.onnx"
            write_bert(shape, path, fused=device != "tensorrt")
            with opened(path, device, SHAPES) as (session, _, runtime):
                for graph_id, size in enumerate(sorted(SHAPES, reverse=True), start=1):
                    clock.check()
                    bound, ones = session.bind(size, graph_id), np.ones(size, np.int64)
                    rows.append(describe(shape, size, runtime, time_runs(partial(bound.run, ones, ones)), gpu))


def providers_of(device: str, engines: Path, shapes: Sequence[Shape]) -> Iterator[tuple[ExecutionProviders, str]]:
    """What to run a graph on, and its name for the report; the next one where that cannot be."""
    if device == "cpu":
        yield ExecutionProviders((ExecutionProvider(CPU),)), "onnxruntime, CPU"
    elif device == "tensorrt":
        tensorrt = ExecutionProvider(TENSORRT, tensorrt_options(engines, shapes))
        yield ExecutionProviders((tensorrt, ExecutionProvider(CUDA, CUDA_OPTIONS))), "onnxruntime, TensorRT"
    else:
        yield ExecutionProviders((ExecutionProvider(CUDA, CUDA_FIRST_OPTIONS),)), "onnxruntime, CUDA graphs"
        yield ExecutionProviders((ExecutionProvider(CUDA, CUDA_OPTIONS),)), "onnxruntime, CUDA"


@contextmanager
def opened(path: Path, device: str, shapes: Sequence[Shape]) -> Iterator[tuple[Any, ExecutionProviders, str]]:
    """A session for some shapes, what it runs on, and the name of that; captured as CUDA graphs where that can be."""
    from service.session import EncoderSession  # noqa: PLC0415 - Qwen3's kind needs no onnxruntime

    refused: HlmError | None = None
    for providers, runtime in providers_of(device, path.parent, shapes):
        try:
            session = EncoderSession(path, providers=providers)
        except HlmError as error:
            refused = refused or error
            continue
        yield session, providers, runtime
        return
    assert refused is not None
    raise refused


def time_runs(run: Callable[[], object]) -> list[float]:
    """Seconds of each run, after the first ones, which allocate and capture."""
    for _ in range(FIRST_RUNS):
        run()
    seconds: list[float] = []
    while len(seconds) < LEAST_RUNS or (sum(seconds) < SECONDS and len(seconds) < MOST_RUNS):
        started = perf_counter()
        run()
        seconds.append(perf_counter() - started)
    return seconds


def describe(shape: ModelShape, size: Shape, runtime: str, seconds: Sequence[float], gpu: str) -> dict[str, Any]:
    """A row of the report: percentiles, rate, and shares of what the GPU could do."""
    p50_s = float(np.median(seconds))
    row: dict[str, Any] = {
        "model": shape.name,
        "runtime": runtime,
        "batch": size.batch,
        "tokens": size.length,
        "p50_ms": round(1e3 * p50_s, 4),
        "p99_ms": round(1e3 * float(np.percentile(seconds, 99)), 4),
        "runs": len(seconds),
        "queries_per_second": round(size.batch / p50_s),
    }
    for known, (memory_rate, matrix_rate) in RATES.items():
        if known in gpu:
            row["memory_share"] = round(shape.bytes_read(*size) / p50_s / memory_rate, 4)
            row["matrix_share"] = round(shape.operations(*size) / p50_s / matrix_rate, 4)
    print(json.dumps(row), file=sys.stderr)
    return row
