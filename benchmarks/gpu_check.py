"""What the GPU path gives on this machine: parity, encoder latency, and `/retrieve` under open-loop load.

Run it on a machine with a GPU, from the repository root; docs/gpu.md says what each part needs:

    python -m benchmarks.gpu_check --out gpu.json

Encoders are timed in their true shapes with random weights, which cost what trained ones do. Parity and `/retrieve`
take artifacts of yours (`--encoder`, `--fp32-encoder`, `--index`), or make random ones and say so. What is missing or
takes longer than its share of the time is left out, or what there is of it is kept, and `left_out` says why. Read p50
at batch 1 for the floor of a lone query, `queries_per_second` for capacity, and the shares for what a better kernel
could still give: of the memory rate at small batches, of the matrix rate at large ones. The capacity search sends from
several processes; where they are the limit `generator_busy_share` is near 1. Exit code 2: no GPU.
"""

import argparse
import contextlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from artifacts.errors import HlmError
from benchmarks.errors import BenchmarkError
from benchmarks.gpu_bars import hold_against_bars
from benchmarks.gpu_models import MINILM
from benchmarks.gpu_timing import Clock, time_berts
from benchmarks.gpu_torch import time_qwens
from service.execution_providers import ExecutionProviderError
from service.gpu import Gpu, read_gpu

SERVICE = (
    *("fastapi", "hnswlib", "httptools", "orjson", "prometheus_client", "pydantic_settings", "tokenizers"),
    *("typer", "uvicorn", "uvloop", "watchfiles", "yaml"),
)
"""Modules of the service that an image for machine learning may lack."""


@dataclass(frozen=True, slots=True)
class Part:
    """Of the check: fills what it is given until its clock stops it."""

    name: str
    seconds: float
    """Its share of the time; one that needs less leaves the others no more."""
    needs: tuple[str, ...]
    """Modules that it cannot do without."""
    measure: Callable[[Any, Clock], None]
    found: Callable[[], Any] = dict


def parts_of(args: argparse.Namespace, gpu: str) -> list[Part]:
    """All parts, the most wanted first; together 470 s of the 480 that the check may take.

    A share is two to three times what its part is expected to need on an H100. TensorRT is last, because the build of
    an engine cannot be stopped in the middle.
    """

    def parity(found: Any, clock: Clock) -> None:
        from benchmarks.gpu_parity import measure_parity  # noqa: PLC0415 - needs onnxruntime

        measure_parity(found, clock, ("cuda", *tensorrt), args.encoder, args.fp32_encoder)

    def retrieve(found: Any, clock: Clock) -> None:
        from benchmarks.gpu_retrieve import measure_retrieve  # noqa: PLC0415 - needs the packages of the service

        measure_retrieve(found, clock, args.encoder, args.index)

    bert, made = ("onnx", "onnxruntime"), ("onnx",) if args.encoder is None else ()
    tensorrt = ("tensorrt",) if _has_tensorrt() else ()
    of_bert = partial(time_berts, device="cuda", gpu=gpu)
    parity_needs = bert if args.encoder is None else ("onnxruntime", *SERVICE)
    parts = [
        Part("parity", 40, parity_needs, parity),
        Part("onnxruntime", 70, bert, of_bert, list),
        Part("torch", 130, ("torch", "transformers"), partial(time_qwens, device="cuda", gpu=gpu)),
        Part("retrieve", 160, (*made, "onnxruntime", *SERVICE), retrieve),
    ]
    of_tensorrt = partial(time_berts, device="tensorrt", gpu=gpu, models=(MINILM,))
    return [*parts, *(Part("tensorrt", 70, bert, of_tensorrt, list) for _ in tensorrt)]


def _has_tensorrt() -> bool:
    from service.device_options import read_target  # noqa: PLC0415 - looks for the library

    with contextlib.suppress(ExecutionProviderError):
        read_target(0)
        return True
    return False


def main() -> None:
    """Measure what can be measured, print a line a shape and, last, the report as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", type=Path, help="fp16 encoder artifact for parity and /retrieve")
    parser.add_argument("--fp32-encoder", type=Path, help="fp32 artifact of the same checkpoint, for parity")
    parser.add_argument("--index", type=Path, help="index artifact of the same embedding space")
    parser.add_argument("--only", nargs="+", help="names of parts; the others are not run")
    parser.add_argument("--out", type=Path, help="file for the report, written after each part")
    args = parser.parse_args()
    try:
        gpu = find_gpu()
    except ExecutionProviderError as error:
        print(f"No GPU can be checked: {error}", file=sys.stderr)
        sys.exit(2)
    with contextlib.suppress(ImportError):
        import torch  # noqa: F401, PLC0415 - brings CUDA's libraries, where no others are installed
    started = perf_counter()
    report: dict[str, Any] = {"gpu": gpu.name, "driver": gpu.driver, "weights": "random", "seconds": {}, "left_out": {}}
    for part in parts_of(args, gpu.name):
        if args.only is None or part.name in args.only:
            run_part(report, part)
            report["seconds"]["total"] = round(perf_counter() - started, 1)
            report["bars"] = hold_against_bars(report)
            if args.out:
                args.out.write_text(json.dumps(report) + "\n")
    print(json.dumps(report))


def run_part(report: dict[str, Any], part: Part) -> None:
    """Run a part into the report; what it lacks or where it fails is named there, and the others go on."""
    started = perf_counter()
    found = report[part.name] = part.found()
    try:
        check_modules(part.needs)
        part.measure(found, Clock(part.seconds))
    except Exception as error:  # of onnxruntime, of CUDA, of a library: each part stands for itself
        reason = str(error) if isinstance(error, HlmError) else f"{type(error).__name__}: {error}"
        report["left_out"][part.name] = reason
        print(f"{part.name}: {reason}", file=sys.stderr)
    report["seconds"][part.name] = round(perf_counter() - started, 1)


def check_modules(names: Sequence[str]) -> None:
    """See that modules can be imported.

    Raises:
        BenchmarkError: some cannot.
    """
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise BenchmarkError(f"needs {', '.join(missing)}, not installed here")


def find_gpu(ask: Callable[[], str] | None = None) -> Gpu:
    """The first GPU, by NVML or, where nvidia-ml-py is missing, by the driver's own program.

    Raises:
        ExecutionProviderError: there is none.
    """
    try:
        return read_gpu(0)
    except ExecutionProviderError:
        try:
            name, driver = (ask or _ask_driver)().splitlines()[0].split(", ")
        except (OSError, subprocess.SubprocessError, IndexError, ValueError):
            pass
        else:
            return Gpu(name, driver)
        raise


def _ask_driver() -> str:
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout


if __name__ == "__main__":
    main()
