"""How close embeddings in fp16 on a device are to those in fp32 on the CPU."""

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from artifacts.errors import HlmError
from benchmarks.gpu_models import MINILM, ModelShape, write_bert
from benchmarks.gpu_timing import Clock, opened
from index.exact import exact_top_k
from service.shapes import Shape

TOP_K = 100
TEXTS = 512
MOST_TOKENS = 32
BATCHES = (1, 4, 16, 64)
NAMES = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider", "cpu": "CPUExecutionProvider"}


def measure_parity(
    found: dict[str, Any],
    clock: Clock,
    devices: Sequence[str],
    encoder: Path | None,
    reference: Path | None,
    shape: ModelShape = MINILM,
) -> None:
    """Hold each device's embeddings of some queries against the reference.

    Args:
        found: gets an entry a provider, and what was compared with what.
        clock: of this part.
        devices: keys of `NAMES`.
        encoder: fp16 artifact; None for random weights.
        reference: fp32 artifact of the same checkpoint; without it the fp16 one runs on the CPU.
        shape: of random weights.
    """
    if encoder is None:
        _measure_random(found, clock, devices, shape)
    else:
        _measure_artifacts(found, clock, devices, encoder, reference)


def _measure_random(found: dict[str, Any], clock: Clock, devices: Sequence[str], shape: ModelShape) -> None:
    """The same weights as an fp32 graph of standard nodes on the CPU, and in fp16 as a device takes it."""
    rng = np.random.default_rng(0)
    texts = [rng.integers(1, shape.vocabulary, size).tolist() for size in rng.integers(3, MOST_TOKENS + 1, TEXTS)]
    found |= {"texts": TEXTS, "weights": "random", "reference": "fp32 graph of standard nodes on the CPU"}
    with tempfile.TemporaryDirectory(prefix="hlm-gpu-") as scratch:
        plain = Path(scratch) / "plain.onnx"
        write_bert(shape, plain, fused=False, fp16=False)
        with opened(plain, "cpu", ()) as (session, _, _):
            expected = np.concatenate([_encode_one(session, ids) for ids in texts])
        for device in devices:
            graph = Path(scratch) / device / "model.onnx"
            graph.parent.mkdir()
            write_bert(shape, graph, fused=device != "tensorrt")
            _compare_with(found, clock, device, expected, partial(_in_lanes, graph, device, texts))


def _encode_one(session: Any, ids: Sequence[int]) -> Any:
    return session.run(np.array([ids], np.int64), np.ones((1, len(ids)), np.int64))


def _in_lanes(graph: Path, device: str, texts: Sequence[Sequence[int]]) -> Any:
    """Embeddings as the service makes them: padded, in batches of few shapes, captured where that can be."""
    from service.lanes import Lanes  # noqa: PLC0415 - these need onnxruntime
    from service.session import EncoderSession, pad  # noqa: PLC0415

    shapes = [Shape(batch, length) for batch in BATCHES for length in (8, MOST_TOKENS)]
    with opened(graph, device, shapes) as (_, providers, _):
        lanes = Lanes(lambda: EncoderSession(graph, providers=providers), shapes, 1)
    return lanes.run(*pad(texts, 0))


def _measure_artifacts(
    found: dict[str, Any], clock: Clock, devices: Sequence[str], encoder: Path, reference: Path | None
) -> None:
    from benchmarks.queries import read_queries  # noqa: PLC0415 - these need the packages of the service
    from service.encoder import Encoder  # noqa: PLC0415
    from service.settings import InferenceSettings  # noqa: PLC0415

    plain = Encoder.load(reference or encoder)[0]
    texts = [plain.tokenize(query) for query in read_queries(None)[:TEXTS]]
    found |= {"texts": len(texts), "weights": str(encoder), "reference": f"{reference or encoder} on the CPU"}
    expected = np.concatenate([plain.encode([ids]) for ids in texts])

    def encode(device: str) -> Any:
        wanted = {"execution_providers": [NAMES[device]], "batches_in_flight": 1}
        providers = InferenceSettings.model_validate(wanted).providers(64)
        return Encoder.load(encoder, providers=providers)[0].encode(texts)

    for device in devices:
        _compare_with(found, clock, device, expected, partial(encode, device))


def _compare_with(found: dict[str, Any], clock: Clock, device: str, expected: Any, encode: Callable[[], Any]) -> None:
    clock.check()
    try:
        found[NAMES[device]] = compare(expected, encode())
    except HlmError as error:
        found[NAMES[device]] = {"left_out": str(error)}


def compare(expected: Any, found: Any) -> dict[str, float]:
    """Cosines of two sets of embeddings (n, dim), and how much of the first's nearest 100 the second's have too."""
    cosines = (expected * found).sum(axis=1)
    top_k = min(TOP_K, len(expected) - 1)
    pairs = zip(exact_top_k(expected, expected, top_k)[0], exact_top_k(found, expected, top_k)[0], strict=True)
    shared = [len(np.intersect1d(ours, theirs)) / top_k for ours, theirs in pairs]
    return {
        "cosine_mean": float(cosines.mean()),
        "cosine_min": float(cosines.min()),
        "overlap_at_100": float(np.mean(shared)),
    }
