"""An encoder on a device: batches of a few shapes, several of them in flight.

    worker threads                     lanes: a thread, a session and a stream each
    run ──> shape ──> a free lane ───> copy in, run, copy out
    run ──> shape ──> a free lane ───> copy in, run, copy out      while one is copied, the other is computed
    run ──> waits for one

A session each, because the batches of one would share its stream and the memory of its CUDA graphs; a thread each,
because onnxruntime keeps those graphs by the thread that captured them. While one captures, all others wait, those of
other releases too: see `service.captures`.
"""

import logging
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from statistics import median
from time import perf_counter
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from service.captures import TURNS
from service.session import BoundRun, EncoderSession
from service.shapes import Shape, ShapeCosts

FIRST_RUNS = 3
"""Of each shape: onnxruntime allocates in the first, captures a CUDA graph in the second or third, then replays it."""
MEASURED_RUNS = 5

logger = logging.getLogger(__name__)

Tokens = NDArray[np.int64]
Embeddings = NDArray[np.float32]
T = TypeVar("T")


class _Lane:
    """One batch in flight at a time."""

    def __init__(self, open_session: Callable[[], EncoderSession], shapes: Sequence[Shape]) -> None:
        self._session: EncoderSession | None = None
        self._runs: dict[Shape, BoundRun] = {}
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        threading.Thread(target=self._work, name="encoder-lane", daemon=True).start()
        try:
            self.execution_providers = self._call(partial(self._open, open_session, shapes))
            """What it runs on, first what most of it does."""
        except BaseException:
            self.close()  # nobody gets to hold it, and its thread would wait for ever
            raise

    def run(self, shape: Shape, input_ids: Tokens, attention_mask: Tokens) -> Embeddings:
        """Encode a batch that fits into the shape."""
        return self._call(partial(self._run, shape, input_ids, attention_mask))

    def measure(self, shape: Shape) -> float:
        """Run a shape until it is at its usual speed; median seconds of the runs after that."""
        return self._call(partial(self._measure, shape))

    def close(self) -> None:
        """Give back what it holds on the device, soon; nothing runs on it any more.

        Takes no lock, since the garbage collector calls it anywhere: an executor's `submit` would wait for itself.
        """
        self._tasks.put(None)

    def _call(self, do: Callable[[], T]) -> T:
        future: Future[T] = Future()

        def task() -> None:
            try:
                future.set_result(do())
            except BaseException as error:  # raised where the result is waited for
                future.set_exception(error)

        self._tasks.put(task)
        return future.result()

    # --- on the lane's thread -----------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()
            del task  # with the batch that it holds
        self._drop()

    def _open(self, open_session: Callable[[], EncoderSession], shapes: Sequence[Shape]) -> tuple[str, ...]:
        # Takes no turn: releases are loaded one after the other, so nobody captures meanwhile. With one, a capture that
        # waited for seconds of loading would keep all runs waiting behind it.
        session = self._session = open_session()
        self._runs = {shape: session.bind(shape, graph_id) for graph_id, shape in enumerate(shapes, start=1)}
        return session.execution_providers

    def _run(self, shape: Shape, input_ids: Tokens, attention_mask: Tokens) -> Embeddings:
        with TURNS.together():
            return self._runs[shape].run(input_ids, attention_mask)

    def _measure(self, shape: Shape) -> float:
        assert self._session is not None
        ones = np.ones(shape, dtype=np.int64)
        for _ in range(FIRST_RUNS):
            with TURNS.alone() if self._session.captures else TURNS.together():
                self._runs[shape].run(ones, ones)
        seconds = []
        for _ in range(MEASURED_RUNS):
            started = perf_counter()
            self._run(shape, ones, ones)
            seconds.append(perf_counter() - started)
        return median(seconds)

    def _drop(self) -> None:
        with TURNS.together():
            self._runs.clear()
            self._session = None


def _close(lanes: Sequence[_Lane]) -> None:
    for lane in lanes:
        lane.close()


class Lanes:
    """Takes the place of an `EncoderSession` on a device; `run` may be called from several threads at once."""

    def __init__(self, open_session: Callable[[], EncoderSession], shapes: Sequence[Shape], count: int) -> None:
        """Open the sessions, run every shape in each, and measure what it costs: no request is the first of its shape.

        Args:
            open_session: opens the graph; called for each lane, on its thread.
            shapes: a complete grid of them.
            count: how many lanes.

        Raises:
            ExecutionProviderError: the device cannot be had.
            SessionError: the graph cannot be loaded there.
        """
        lanes: list[_Lane] = []
        # What a device holds is freed on the threads that use it, when no other one captures; also where the last of
        # the lanes cannot be opened.
        weakref.finalize(self, _close, lanes).atexit = False
        lanes.extend(_Lane(open_session, shapes) for _ in range(count))
        self.execution_providers = lanes[0].execution_providers
        """What they run on, first what most of it does."""
        self.costs = self._warm_up(lanes, shapes)
        """What each shape costs here and now."""
        self._free: SimpleQueue[_Lane] = SimpleQueue()
        for lane in lanes:
            self._free.put(lane)

    def run(self, input_ids: Tokens, attention_mask: Tokens) -> Embeddings:
        """Encode one padded batch: two (batch, length) arrays in, embeddings (batch, dim) out.

        One with more rows than any shape goes in parts.

        Raises:
            ValueError: it is longer than any shape.
        """
        most = self.costs.largest.batch
        starts = range(0, len(input_ids), most)
        parts = [self._run_part(input_ids[at : at + most], attention_mask[at : at + most]) for at in starts]
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def _run_part(self, input_ids: Tokens, attention_mask: Tokens) -> Embeddings:
        shape = self.costs.shape_for(*input_ids.shape)
        lane = self._free.get()
        try:
            return lane.run(shape, input_ids, attention_mask)
        finally:
            self._free.put(lane)

    def _warm_up(self, lanes: Sequence[_Lane], shapes: Sequence[Shape]) -> ShapeCosts:
        """The largest shape first: what it takes of the device's memory is enough for all others."""
        seconds = {}
        for done, shape in enumerate(sorted(shapes, reverse=True), start=1):
            seconds[shape] = max(lane.measure(shape) for lane in lanes)
            logger.debug("shape %d × %d (%d of %d): %.6f s", *shape, done, len(shapes), seconds[shape])
        logger.info("%d lanes on %s, %d shapes each", len(lanes), self.execution_providers[0], len(shapes))
        return ShapeCosts(seconds)
