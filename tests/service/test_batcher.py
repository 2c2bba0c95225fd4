"""The batcher with real threads and a real loop; a gate in place of slow work, so that nothing sleeps."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

import pytest

from service.batch_queue import BatchPolicy
from service.batcher import MicroBatcher
from service.errors import DeadlineExceeded, Overloaded, PipelineError

FAR = 3600.0


class Doubler:
    """Doubles numbers, fails on 13, waits at its gate, and remembers each batch it was given."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.entered.set()
        assert self.gate.wait(timeout=30)
        if 13 in items:
            raise ValueError("unlucky")
        return [item * 2 for item in items]

    def close(self) -> None:
        self.gate.clear()
        self.entered.clear()


@asynccontextmanager
async def batcher_of(
    run: Callable[[Sequence[int]], list[int]], *, bound: int = 100
) -> AsyncIterator[MicroBatcher[int, int]]:
    batcher: MicroBatcher[int, int] = MicroBatcher(run, BatchPolicy(8, 1_000, bound), workers=1)
    batcher.start()
    try:
        yield batcher
    finally:
        await batcher.stop()


def submit(batcher: MicroBatcher[int, int], item: int, seconds: float = FAR) -> "asyncio.Future[int]":
    return batcher.submit(item, tokens=1, deadline=perf_counter() + seconds)


async def occupy(batcher: MicroBatcher[int, int], run: Doubler) -> "asyncio.Future[int]":
    """Have the only worker stand at the gate with item 0."""
    run.close()
    first = submit(batcher, 0)
    assert await asyncio.to_thread(run.entered.wait, 30)
    return first


def run_async(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def wrapper() -> None:
        asyncio.run(asyncio.wait_for(test(), 60))

    wrapper.__name__ = test.__name__
    return wrapper


@run_async
async def test_everyone_gets_their_own_result():
    async with batcher_of(Doubler()) as batcher:
        assert await asyncio.gather(*(submit(batcher, item) for item in range(20, 70))) == list(range(40, 140, 2))


@run_async
async def test_a_batch_grows_while_the_worker_is_busy_and_no_further():
    run = Doubler()
    async with batcher_of(run) as batcher:
        first = await occupy(batcher, run)
        others = [submit(batcher, item) for item in range(1, 6)]
        run.gate.set()
        await asyncio.gather(first, *others)
        assert run.batches == [[0], [1, 2, 3, 4, 5]]


@run_async
async def test_a_failing_item_fails_alone():
    run = Doubler()
    async with batcher_of(run) as batcher:
        first = await occupy(batcher, run)
        futures = [submit(batcher, item) for item in (1, 13, 2, 3)]
        run.gate.set()
        outcomes = await asyncio.gather(first, *futures, return_exceptions=True)
        assert outcomes[:2] == [0, 2]
        assert outcomes[3:] == [4, 6]
        assert isinstance(outcomes[2], PipelineError)
        assert "ValueError" in str(outcomes[2])


@run_async
async def test_the_worker_survives_failures():
    async with batcher_of(Doubler()) as batcher:
        with pytest.raises(PipelineError):
            await submit(batcher, 13)
        assert batcher.alive
        assert await submit(batcher, 4) == 8


@run_async
async def test_an_abandoned_item_is_never_run():
    run = Doubler()
    async with batcher_of(run) as batcher:
        first = await occupy(batcher, run)
        abandoned, kept = submit(batcher, 7), submit(batcher, 8)
        abandoned.cancel()
        run.gate.set()
        assert await asyncio.gather(first, kept) == [0, 16]
        assert run.batches == [[0], [8]]


@run_async
async def test_the_deadline_answers_even_while_the_worker_is_stuck_and_the_item_is_never_run():
    run = Doubler()
    async with batcher_of(run) as batcher:
        first = await occupy(batcher, run)
        with pytest.raises(DeadlineExceeded):
            await submit(batcher, 7, seconds=0.001)
        run.gate.set()
        assert await first == 0
        assert await submit(batcher, 8) == 16
        assert run.batches == [[0], [8]]


@run_async
async def test_refuses_when_the_queue_is_full_and_admits_again_when_it_has_drained():
    run = Doubler()
    async with batcher_of(run, bound=2) as batcher:
        first = await occupy(batcher, run)
        waiting = [submit(batcher, item) for item in (1, 2)]
        with pytest.raises(Overloaded) as refusal:
            batcher.admit()
        assert refusal.value.retry_after_s is not None
        assert refusal.value.retry_after_s >= 1
        run.gate.set()
        await asyncio.gather(first, *waiting)
        batcher.admit()


@run_async
async def test_a_wrong_number_of_results_fails_everyone_clearly():
    async with batcher_of(lambda items: [1] * (len(items) + 1)) as batcher:
        with pytest.raises(PipelineError, match="ValueError"):
            await submit(batcher, 1)


@run_async
async def test_stopping_finishes_what_is_queued():
    run = Doubler()
    async with batcher_of(run) as batcher:
        first = await occupy(batcher, run)
        second = submit(batcher, 5)
        stopping = asyncio.create_task(batcher.stop())
        await asyncio.sleep(0)
        run.gate.set()
        await stopping
        assert (await first, await second) == (0, 10)
