"""How fast encoders of Qwen3's kind run in PyTorch: the student of the paper's shape against its teacher.

Both are compiled the same way, twice over, and run eagerly beside that:
- as CUDA graphs of the eager kernels, at every shape of the grid. That takes away what launching costs, which is nearly
  all of a small model's time, and needs no compiler;
- as CUDA graphs of layers that `torch.compile` has fused, at three shapes, as compiling for each takes many seconds.
  All layers of a model share their code, so one compilation does for 4 and for 36 of them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from benchmarks.gpu_models import QWENS, STUDENT, TEACHER, ModelShape
from benchmarks.gpu_timing import FIRST_RUNS, SHAPES, Clock, OutOfTimeError, Rows, describe, time_runs
from service.shapes import Shape

EAGER, GRAPHS, COMPILED = "torch, eager", "torch, CUDA graphs", "torch, compiled layers in CUDA graphs"
Backend = str | Callable[..., Any]
COMPILED_SHAPES = (Shape(1, 16), Shape(8, 16), Shape(64, 16))


def time_qwens(
    found: dict[str, Any],
    clock: Clock,
    device: str,
    gpu: str,
    *,
    models: Sequence[ModelShape] = QWENS,
    shapes: Sequence[Shape] = SHAPES,
    backend: Backend = "inductor",
) -> None:
    """Time shapes eagerly, as CUDA graphs and compiled, and hold the student against the teacher each time.

    Args:
        found: gets `rows` and `student_to_teacher`.
        clock: of this part.
        device: `cuda`, or `cpu`, which has no graphs to capture.
        gpu: its name.
        models: in the order in which they are timed.
        shapes: of batches.
        backend: of `torch.compile`.
    """
    rows: Rows = found.setdefault("rows", [])
    left_out: dict[str, str] = found.setdefault("left_out", {})
    try:
        for shape in models:
            clock.check()
            with _model(shape, device) as model:
                for runtime, sizes in ((EAGER, shapes), (GRAPHS, shapes), (COMPILED, COMPILED_SHAPES)):
                    try:
                        _time(rows, clock, model, shape, runtime, sizes, device, gpu, backend)
                    except OutOfTimeError:
                        raise
                    except Exception as error:  # of a compiler, of a capture: the other ways stand for themselves
                        left_out[f"{shape.name}, {runtime}"] = f"{type(error).__name__}: {error}"
    finally:
        found["student_to_teacher"] = ratios(rows)


def _time(
    rows: Rows,
    clock: Clock,
    model: Any,
    shape: ModelShape,
    runtime: str,
    sizes: Sequence[Shape],
    device: str,
    gpu: str,
    backend: Backend,
) -> None:
    if runtime == COMPILED:
        _compile_layers(model, backend)
    for size in sizes:
        clock.check()
        with _run_of(model, size, device, captured=runtime != EAGER) as run:
            rows.append(describe(shape, size, runtime, time_runs(run), gpu))


def ratios(rows: Rows) -> Rows:
    """How many times lower the student's latency is than the teacher's, which is also how many times its rate."""
    p50 = {(row["model"], row["runtime"], row["batch"], row["tokens"]): row["p50_ms"] for row in rows}
    return [
        {
            "runtime": runtime,
            "batch": batch,
            "tokens": tokens,
            "times_faster": round(p50[TEACHER.name, runtime, batch, tokens] / ms, 2),
        }
        for (name, runtime, batch, tokens), ms in p50.items()
        if name == STUDENT.name and (TEACHER.name, runtime, batch, tokens) in p50
    ]


@contextmanager
def _model(shape: ModelShape, device: str) -> Iterator[Any]:
    """The model of transformers with random weights in fp16; its grouped attention and norms are the true ones."""
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
    torch.set_default_dtype(torch.float16 if device == "cuda" else torch.float32)
    try:
        with torch.device(device):
            yield AutoModel.from_config(config).eval()
    finally:
        torch.set_default_dtype(torch.float32)
        if device == "cuda":
            torch.cuda.empty_cache()


def _compile_layers(model: Any, backend: Backend) -> None:
    import torch  # noqa: PLC0415 - likewise

    torch.compiler.reset()  # what an earlier model left counts against the limit of compilations
    for layer in model.layers:
        layer.compile(backend=backend, dynamic=False)


@contextmanager
def _run_of(model: Any, size: Shape, device: str, *, captured: bool) -> Iterator[Callable[[], None]]:
    """A run of one shape that is over when it returns."""
    import torch  # noqa: PLC0415 - likewise

    ids = torch.ones(tuple(size), dtype=torch.int64, device=device)
    run: Callable[[], object] = partial(model, input_ids=ids)
    with torch.inference_mode():
        if captured and device == "cuda":
            run = _capture(torch, run)

        def finish() -> None:
            run()
            if device == "cuda":
                torch.cuda.synchronize()

        yield finish


def _capture(torch: Any, run: Callable[[], object]) -> Callable[[], object]:
    """The same run as a CUDA graph, after some on a stream of their own, as PyTorch asks for."""
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(FIRST_RUNS):
            run()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    replay: Callable[[], object] = graph.replay
    return replay
