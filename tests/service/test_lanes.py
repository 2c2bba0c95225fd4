"""An encoder in lanes, through the code that a GPU runs, on the CPU."""

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.thread import _global_shutdown_lock

import numpy as np
import pytest

from service.encoder import Encoder
from service.execution_providers import CPU, ExecutionProvider, ExecutionProviders, LanePolicy, device_of
from service.settings import InferenceSettings
from tests.service.small_artifacts import SmallArtifacts
from tests.waiting import PATIENCE_S

IN_LANES = ExecutionProviders((ExecutionProvider(CPU),), lanes=LanePolicy((1, 2, 4), (8, 16), 2))
QUERIES = ["drill", "cordless drill 18v", "a " * 40, "red shoes", "x", "garden hose with a reel, 30 m", "lamp"]


@pytest.fixture(scope="module")
def plain(small: SmallArtifacts) -> Encoder:
    return Encoder.load(small.encoder)[0]


@pytest.fixture(scope="module")
def in_lanes(small: SmallArtifacts) -> Encoder:
    return Encoder.load(small.encoder, providers=IN_LANES)[0]


@pytest.mark.parametrize("count", range(1, len(QUERIES) + 1))
def test_an_embedding_is_the_same_in_a_lane_whatever_its_batch(plain: Encoder, in_lanes: Encoder, count: int):
    """Batches of up to four rows have a shape; larger ones go in parts."""
    token_ids = [plain.tokenize(query) for query in QUERIES[:count]]
    embeddings = in_lanes.encode(token_ids)
    assert embeddings.shape == (count, plain.space.dim)
    np.testing.assert_allclose(embeddings, plain.encode(token_ids), atol=1e-6)


def test_what_a_shape_held_before_does_not_show(plain: Encoder, in_lanes: Encoder):
    short, long = plain.tokenize("drill"), plain.tokenize("garden hose and reel")
    first = in_lanes.encode([short, short])
    in_lanes.encode([long, long])
    assert in_lanes.encode([short, short]).tobytes() == first.tobytes()


def test_embeddings_are_the_callers_own(in_lanes: Encoder):
    """The output stays where it is from run to run; who got it must not see the next one's."""
    first = in_lanes.encode([in_lanes.tokenize("drill")])
    kept = first.copy()
    for _ in range(4):
        in_lanes.encode([in_lanes.tokenize("lamp")])
    assert first.tobytes() == kept.tobytes()


def test_many_threads_share_the_lanes(plain: Encoder, in_lanes: Encoder):
    token_ids = [plain.tokenize(query) for query in QUERIES]
    expected = [plain.encode([ids]) for ids in token_ids]
    start = threading.Barrier(8)

    def encode(number: int) -> None:
        start.wait(10)
        for position in [(number + step) % len(QUERIES) for step in range(20)]:
            np.testing.assert_allclose(in_lanes.encode([token_ids[position]]), expected[position], atol=1e-6)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(encode, range(8)))


def test_ads_have_a_shape_too(plain: Encoder, in_lanes: Encoder):
    ids = plain.tokenize_ads(["hammer and nails " * 100])
    assert len(ids[0]) == 256
    np.testing.assert_allclose(in_lanes.encode(ids), plain.encode(ids), atol=1e-6)


def test_every_shape_is_measured_before_a_query_comes(plain: Encoder, in_lanes: Encoder):
    assert plain.shape_costs is None
    assert in_lanes.shape_costs is not None
    expected = {(batch, length) for batch in (1, 2, 4) for length in (8, 16, 64, 256)}
    assert in_lanes.shape_costs.seconds.keys() == expected
    assert all(seconds > 0 for seconds in in_lanes.shape_costs.seconds.values())


def test_settings_say_what_runs_in_lanes():
    assert InferenceSettings().providers(8).lanes is None
    on_cpu = InferenceSettings(batches_in_flight=3)
    assert on_cpu.providers(4).lanes == LanePolicy((1, 2, 4), (8, 16, 24, 32), 3)
    cuda = InferenceSettings.model_validate({"execution_providers": ["CUDAExecutionProvider"], "padding_buckets": [12]})
    assert cuda.providers(6).lanes == LanePolicy((1, 2, 4, 6), (12,), 2)


def test_a_device_is_where_the_first_provider_runs():
    options = {"CUDAExecutionProvider": {"device_id": "1"}, CPU: {}}
    assert device_of("CUDAExecutionProvider", options) == ("cuda", 1)
    assert device_of("TensorrtExecutionProvider", {}) == ("cuda", 0)
    assert device_of(CPU, options) == ("cpu", 0)


def test_lanes_are_freed_wherever_the_garbage_collector_runs(small: SmallArtifacts):
    """It may run inside an executor's `submit`, which holds a lock that no other `submit` on that thread can have."""
    held = [Encoder.load(small.encoder, providers=IN_LANES)[0]]

    def free() -> None:
        with _global_shutdown_lock:
            held.clear()
            gc.collect()

    thread = threading.Thread(target=free, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
