"""What only a GPU can show; skipped without one."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import numpy as np
import onnxruntime
import pytest

from service.encoder import Encoder
from service.execution_providers import CUDA, TENSORRT, ExecutionProvider, ExecutionProviders, LanePolicy
from service.gpu import read_load
from tests.export.checkpoints import save_transformer
from tests.service.small_artifacts import export

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        CUDA not in onnxruntime.get_available_providers(), reason="needs an NVIDIA GPU and onnxruntime-gpu"
    ),
]
QUERIES = ["cordless drill 18v", "sofa", "led light bulbs 60 watt dimmable", "1/2 inch pipe", "lamp"]
LANES = LanePolicy((1, 2, 4), (8, 16), 2)


@pytest.mark.parametrize("provider", [CUDA, TENSORRT])
def test_embeddings_are_those_of_the_cpu(provider: str, tmp_path: Path):
    if provider not in onnxruntime.get_available_providers():
        pytest.skip(f"{provider} is not in the installed onnxruntime")
    export(save_transformer(tmp_path / "tiny"), tmp_path / "fp16", precision="fp16", for_tensorrt=provider == TENSORRT)
    plain = Encoder.load(tmp_path / "fp16")[0]
    on_gpu = Encoder.load(tmp_path / "fp16", providers=ExecutionProviders((ExecutionProvider(provider),), lanes=LANES))[
        0
    ]
    token_ids = [plain.tokenize(query) for query in QUERIES]
    for _ in range(3):  # captured graphs are replayed
        for count in range(1, len(QUERIES) + 1):
            found, expected = on_gpu.encode(token_ids[:count]), plain.encode(token_ids[:count])
            assert (found * expected).sum(axis=1).min() > 0.999


def test_memory_does_not_grow_from_batch_to_batch(tmp_path: Path):
    export(save_transformer(tmp_path / "tiny"), tmp_path / "fp16", precision="fp16")
    providers = ExecutionProviders((ExecutionProvider(CUDA),), lanes=LANES)
    encoder = Encoder.load(tmp_path / "fp16", providers=providers)[0]
    before = read_load(0).memory_used_bytes
    lengths = np.random.default_rng(0).integers(1, 60, 500)
    for length in lengths:
        encoder.encode([[101] * int(length)] * int(length % 7 + 1))
    assert read_load(0).memory_used_bytes - before < 1_000_000


def test_a_release_is_captured_while_another_serves(tmp_path: Path):
    """onnxruntime captures in a mode that lets no other thread use the device: neither side may fail."""
    export(save_transformer(tmp_path / "tiny"), tmp_path / "fp16", precision="fp16")
    providers = ExecutionProviders((ExecutionProvider(CUDA),), lanes=LANES)

    def load() -> Encoder:
        return Encoder.load(tmp_path / "fp16", providers=providers)[0]

    serving, stop = load(), Event()
    token_ids = [serving.tokenize(query) for query in QUERIES]
    expected = serving.encode(token_ids)

    def serve() -> None:
        while not stop.is_set():
            np.testing.assert_allclose(serving.encode(token_ids), expected, atol=1e-3)

    with ThreadPoolExecutor(2) as pool:
        serves = [pool.submit(serve) for _ in range(2)]
        try:
            for _ in range(5):  # each frees the one before
                np.testing.assert_allclose(load().encode(token_ids), expected, atol=1e-3)
        finally:
            stop.set()
        for one in serves:
            one.result()
