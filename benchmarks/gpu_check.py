"""What the GPU path gives on this machine: parity, encoder latency, and `/retrieve` under open-loop load.

Run it on a machine with a GPU, from the repository root, with onnxruntime-gpu, onnx and nvidia-ml-py; PyTorch and
transformers for the shapes of Qwen3, an fp16 artifact and an index for the rest:

    python -m benchmarks.gpu_check --encoder var/encoders/minilm-fp16 --index var/indexes/samples --out gpu.json

Encoders are timed in their true shapes with random weights, which cost what trained ones do. What is missing is left
out and named under `left_out`. Read p50 at batch 1 for the floor of a lone query, `queries_per_second` for capacity,
and the shares for what a better kernel could still give: of the memory rate at small batches, of the matrix rate at
large ones. The capacity search sends from several processes; where they are the limit it says so. Exit code 2: no GPU.
"""

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from artifacts.errors import HlmError
from benchmarks.gpu_models import BERTS, QWENS, STUDENT, TEACHER, ModelShape, write_bert
from service.device_options import CUDA_FIRST_OPTIONS, CUDA_OPTIONS
from service.execution_providers import CUDA, ExecutionProvider, ExecutionProviderError, ExecutionProviders
from service.gpu import read_gpu
from service.session import EncoderSession
from service.shapes import Shape

SHAPES = tuple(Shape(batch, length) for batch in (1, 4, 8, 16, 32, 64, 128) for length in (8, 16, 32))
FIRST_RUNS = 5
LEAST_RUNS, MOST_RUNS, SECONDS = 10, 400, 0.5
"""Of one shape: 100 runs or more where one takes less than 5 ms, and all models together under four minutes."""
RATES = {"H100": (3.35e12, 989e12), "H200": (4.8e12, 989e12), "A100": (2.04e12, 312e12)}
"""Bytes and dense fp16 operations a second that the vendor states, of the SXM kind with 80 GB or more."""
QUERIES = 512
TOP_K = 100


def main() -> None:
    """Measure what can be measured, print a line a shape and, last, the report as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", type=Path, help="fp16 encoder artifact for parity and /retrieve")
    parser.add_argument("--index", type=Path, help="index artifact of the same embedding space")
    parser.add_argument("--out", type=Path, help="file for the report")
    args = parser.parse_args()
    try:
        gpu = read_gpu(0)
    except ExecutionProviderError as error:
        print(f"No GPU can be checked: {error}", file=sys.stderr)
        sys.exit(2)
    with contextlib.suppress(ImportError):
        import torch  # noqa: F401, PLC0415 - brings CUDA's libraries, where no others are installed
    report: dict[str, Any] = {"gpu": gpu.name, "driver": gpu.driver, "weights": "random", "left_out": {}}
    parts: dict[str, Callable[[], Any]] = {
        "onnxruntime": lambda: [row for shape in BERTS for row in time_bert(shape, gpu.name)],
        "torch": lambda: time_torch(gpu.name),
        "parity": lambda: measure_parity(args.encoder),
        "retrieve": lambda: measure_retrieve(args.encoder, args.index),
    }
    for name, measure in parts.items():
        try:
            report[name] = measure()
        except (HlmError, ImportError, RuntimeError, OSError) as error:  # each part stands for itself
            report["left_out"][name] = str(error)
            print(f"{name}: left out: {error}", file=sys.stderr)
    line = json.dumps(report)
    if args.out:
        args.out.write_text(line + "\n")
    print(line)


def time_bert(shape: ModelShape, gpu: str, *, on_cpu: bool = False, shapes: Sequence[Shape] = SHAPES) -> list[Any]:
    """Time an encoder of BERT's kind through the bound runs that the service makes, captured where that is possible."""
    with tempfile.TemporaryDirectory(prefix="hlm-gpu-") as scratch:
        path = Path(scratch) / "model.onnx"
        write_bert(shape, path)
        session, runtime = (EncoderSession(path), "onnxruntime") if on_cpu else _open(path)
        rows = []
        for graph_id, size in enumerate(sorted(shapes, reverse=True), start=1):
            bound, ones = session.bind(size, graph_id), np.ones(size, np.int64)
            rows.append(describe(shape, size, runtime, time_runs(partial(bound.run, ones, ones)), gpu))
        return rows


def _open(path: Path) -> tuple[EncoderSession, str]:
    """The graph on CUDA, with its runs captured if onnxruntime can; and which it is."""
    for options, runtime in ((CUDA_FIRST_OPTIONS, "onnxruntime, CUDA graphs"), (CUDA_OPTIONS, "onnxruntime")):
        providers = ExecutionProviders((ExecutionProvider(CUDA, options),))
        try:
            return EncoderSession(path, providers=providers), runtime
        except HlmError as error:
            refused = error
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


def time_torch(gpu: str) -> dict[str, Any]:
    """Time Qwen3's shapes eagerly and as CUDA graphs, and hold the student against the teacher either way."""
    rows = [row for shape in QWENS for captured in (False, True) for row in _time_qwen(shape, gpu, captured=captured)]
    return {"rows": rows, "student_to_teacher": ratios(rows)}


def ratios(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """How many times lower the student's latency is than the teacher's, which is also how many times its rate."""
    p50 = {(row["model"], row["runtime"], row["batch"], row["tokens"]): row["p50_ms"] for row in rows}
    return [
        {"runtime": runtime, "batch": batch, "tokens": tokens, "times_faster": round(p50[TEACHER.name, *key] / ms, 2)}
        for (name, *key), ms in p50.items()
        if name == STUDENT.name
        for runtime, batch, tokens in [key]
    ]


def _time_qwen(shape: ModelShape, gpu: str, *, captured: bool) -> list[dict[str, Any]]:
    import torch  # noqa: PLC0415 - only these shapes need it
    from transformers import AutoModel, Qwen3Config  # noqa: PLC0415

    config = Qwen3Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        head_dim=shape.head_dim,
        use_cache=False,
    )
    torch.set_default_dtype(torch.float16)
    try:
        with torch.device("cuda"):
            model = AutoModel.from_config(config).eval()
        rows = []
        for size in SHAPES:
            ids = torch.ones(tuple(size), dtype=torch.int64, device="cuda")
            with torch.inference_mode():
                run = _captured(torch, model, ids) if captured else partial(model, ids)
                seconds = time_runs(partial(_finish, torch, run))
            runtime = "torch, CUDA graphs" if captured else "torch, eager"
            rows.append(describe(shape, size, runtime, seconds, gpu))
        return rows
    finally:
        torch.set_default_dtype(torch.float32)
        torch.cuda.empty_cache()


def _finish(torch: Any, run: Callable[[], object]) -> None:
    run()
    torch.cuda.synchronize()


def _captured(torch: Any, model: Any, ids: Any) -> Callable[[], None]:
    for _ in range(FIRST_RUNS):
        model(ids)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        model(ids)
    replay: Callable[[], None] = graph.replay
    return replay


def measure_parity(artifact: Path | None) -> dict[str, Any]:
    """Hold an fp16 artifact on CUDA, and on TensorRT where that is installed, against itself on the CPU."""
    from benchmarks.queries import read_queries  # noqa: PLC0415 - these need more packages than the timings
    from service.encoder import Encoder  # noqa: PLC0415
    from service.settings import InferenceSettings  # noqa: PLC0415

    if artifact is None:
        raise HlmError("no --encoder was given")
    plain = Encoder.load(artifact)[0]
    token_ids = [plain.tokenize(query) for query in read_queries(None)[:QUERIES]]
    expected = np.concatenate([plain.encode([ids]) for ids in token_ids])
    report: dict[str, Any] = {"queries": len(token_ids)}
    for name in ("CUDAExecutionProvider", "TensorrtExecutionProvider"):
        providers = InferenceSettings.model_validate({"execution_providers": [name]}).providers(64)
        try:
            report[name] = compare(expected, Encoder.load(artifact, providers=providers)[0].encode(token_ids))
        except HlmError as error:
            report[name] = {"left_out": str(error)}
    return report


def measure_retrieve(artifact: Path | None, index: Path | None) -> dict[str, Any]:
    """Find the capacity of `/retrieve`; see `benchmarks.gpu_retrieve`."""
    from benchmarks.gpu_retrieve import find_capacities  # noqa: PLC0415 - likewise

    return find_capacities(artifact, index)


def compare(expected: Any, found: Any) -> dict[str, float]:
    """Cosines of two sets of embeddings (n, dim), and how much of the first's nearest 100 the second's have too."""
    cosines = (expected * found).sum(axis=1)
    from index.exact import exact_top_k  # noqa: PLC0415 - likewise

    top_k = min(TOP_K, len(expected) - 1)
    pairs = zip(exact_top_k(expected, expected, top_k)[0], exact_top_k(found, expected, top_k)[0], strict=True)
    shared = [len(np.intersect1d(ours, theirs)) / top_k for ours, theirs in pairs]
    return {
        "cosine_mean": float(cosines.mean()),
        "cosine_min": float(cosines.min()),
        "overlap_at_100": float(np.mean(shared)),
    }


if __name__ == "__main__":
    main()
