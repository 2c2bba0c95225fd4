"""Whoever captures a CUDA graph is alone on the device: runs, and releases that are freed, wait."""

import gc
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from service import lanes
from service.captures import Turns
from service.encoder import Encoder
from service.execution_providers import CPU, ExecutionProvider, ExecutionProviders, LanePolicy, captures_graphs
from service.session import BoundRun, EncoderSession, SessionError
from service.shapes import Shape
from tests.service.small_artifacts import SmallArtifacts
from tests.waiting import PATIENCE_S, wait_until

IN_LANES = ExecutionProviders((ExecutionProvider(CPU),), lanes=LanePolicy((1, 2), (8,), 2))
HELD_BACK_S = 0.1
"""Of a run that has asked for its turn: one that is not held back is over long before."""


def test_runs_go_side_by_side_and_a_capture_by_itself():
    turns, both, asked = Turns(), threading.Barrier(2), threading.Event()
    order: list[str] = []

    def run() -> None:
        with turns.together():
            both.wait(PATIENCE_S)

    def capture() -> None:
        with turns.alone():
            order.append("captured")

    def run_later() -> None:
        asked.set()
        with turns.together():
            order.append("ran")

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(run), pool.submit(run)]:
            done.result(PATIENCE_S)
        with turns.together():
            capturing = pool.submit(capture)
            wait_until(lambda: turns._alone)
            later = pool.submit(run_later)
            assert asked.wait(PATIENCE_S)
            with pytest.raises(TimeoutError):
                later.result(HELD_BACK_S)
        capturing.result(PATIENCE_S)
        later.result(PATIENCE_S)
    assert order == ["captured", "ran"]


def test_a_failed_capture_ends_its_turn():
    turns = Turns()
    with pytest.raises(RuntimeError), turns.alone():
        raise RuntimeError
    with pytest.raises(RuntimeError), turns.together():
        raise RuntimeError
    with turns.alone():
        pass


def test_only_cuda_with_graphs_captures():
    assert captures_graphs("CUDAExecutionProvider", {"CUDAExecutionProvider": {"enable_cuda_graph": "1"}})
    assert not captures_graphs("CUDAExecutionProvider", {"CUDAExecutionProvider": {"enable_cuda_graph": "0"}})
    assert not captures_graphs(CPU, {CPU: {}})


class Watched(Turns):
    """Counts captures, and sees that nobody else uses the device meanwhile."""

    captures = 0

    @contextmanager
    def alone(self) -> Iterator[None]:
        with super().alone():
            assert self._running == 0
            self.captures += 1
            yield
            assert self._running == 0


def test_a_release_is_captured_while_another_serves_and_a_third_is_freed(
    small: SmallArtifacts, monkeypatch: pytest.MonkeyPatch
):
    """On the CPU, with sessions that say that they capture: no run of another lane is inside meanwhile."""
    turns, outside = Watched(), 0
    monkeypatch.setattr(lanes, "TURNS", turns)
    run = BoundRun.run

    def checked(bound: BoundRun, *arguments: Any) -> Any:
        nonlocal outside
        outside += not (turns._running or turns._alone)
        return run(bound, *arguments)

    monkeypatch.setattr(BoundRun, "run", checked)
    serving = Encoder.load(small.encoder, providers=IN_LANES)[0]
    assert turns.captures == 0
    init = EncoderSession.__init__

    def capturing(session: EncoderSession, *arguments: Any, **named: Any) -> None:
        init(session, *arguments, **named)
        session.captures = True

    monkeypatch.setattr(EncoderSession, "__init__", capturing)
    token_ids, stop = [serving.tokenize("drill")], threading.Event()
    expected = serving.encode(token_ids)

    def serve() -> int:
        served = 0
        while not stop.is_set():
            np.testing.assert_array_equal(serving.encode(token_ids), expected)
            served += 1
        return served

    with ThreadPoolExecutor(2) as pool:
        serves = [pool.submit(serve) for _ in range(2)]
        loaded = [Encoder.load(small.encoder, providers=IN_LANES)[0] for _ in range(2)]
        gone = weakref.ref(loaded.pop(0))
        gc.collect()
        assert gone() is None
        stop.set()
        assert sum(one.result(PATIENCE_S) for one in serves)
    shapes = len(loaded[0].shape_costs.seconds) if loaded[0].shape_costs else 0
    assert turns.captures == 2 * 2 * shapes * lanes.FIRST_RUNS  # releases, lanes
    assert outside == 0


def test_a_lane_that_cannot_be_opened_is_closed_with_the_others(small: SmallArtifacts):
    graphs = iter([small.encoder / "model.onnx", small.encoder / "nowhere.onnx"])
    opened: list[weakref.ref[EncoderSession]] = []

    def open_session() -> EncoderSession:
        session = EncoderSession(next(graphs))
        opened.append(weakref.ref(session))
        return session

    others = set(threading.enumerate())
    with pytest.raises(SessionError, match=r"nowhere\.onnx"):
        lanes.Lanes(open_session, [Shape(1, 8)], 2)
    gc.collect()
    for thread in (one for one in set(threading.enumerate()) - others if one.name == "encoder-lane"):
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    [first] = opened
    assert first() is None


def test_lanes_that_nobody_holds_free_their_sessions(small: SmallArtifacts, monkeypatch: pytest.MonkeyPatch):
    opened: list[weakref.ref[EncoderSession]] = []
    init = EncoderSession.__init__

    def noted(session: EncoderSession, *arguments: Any, **named: Any) -> None:
        init(session, *arguments, **named)
        opened.append(weakref.ref(session))

    monkeypatch.setattr(EncoderSession, "__init__", noted)
    encoder = Encoder.load(small.encoder, providers=IN_LANES)[0]
    threads = [one for one in threading.enumerate() if one.name.startswith("encoder-lane")]
    assert all(session() is not None for session in opened)
    del encoder
    gc.collect()
    for thread in threads[-2:]:
        thread.join(PATIENCE_S)
    assert len(opened) == 2
    assert all(session() is None for session in opened)
