"""The batcher with real threads and a real loop; a gate in place of slow work, so that nothing sleeps."""

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import pytest

from service.batch_queue import BatchPolicy
from service.batcher import MicroBatcher, Ticket
from service.cost import BatchCost
from service.device_faults import DeviceFaultError, DeviceLostError, DeviceOutOfMemoryError
from service.errors import ClientGone, DeadlineExceeded, PipelineError, RequestError
from service.schedule import Forecast
from tests.waiting import wait_until

FAR = 3600.0


@dataclass(frozen=True)
class Number:
    """An item."""

    value: int
    group: str = "release"
    key: str | None = None
    caller: str = "caller"
    tokens: int = 1


Batcher = MicroBatcher[Number, int]
Work = Ticket[Number, int]


class Doubler:
    """Doubles numbers, fails on 13, waits at its gate, and remembers each batch it was given and where it ran."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.threads: list[threading.Thread] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def __call__(self, items: Sequence[Number], encoded: Callable[[], None]) -> tuple[list[int], BatchCost]:
        values = [item.value for item in items]
        self.batches.append(values)
        self.threads.append(threading.current_thread())
        self.entered.set()
        assert self.gate.wait(timeout=30)
        if 13 in values:
            raise ValueError("unlucky")
        return [value * 2 for value in values], BatchCost([1] * len(items), 0.5, len(items), 0.25)

    def close(self) -> None:
        self.gate.clear()
        self.entered.clear()


@asynccontextmanager
async def batcher_of(
    run: Callable[[Sequence[Number], Callable[[], None]], tuple[list[int], BatchCost]],
    *,
    bound: int = 100,
    workers: int = 1,
    **options: Any,
) -> AsyncIterator[Batcher]:
    batcher: Batcher = MicroBatcher(run, BatchPolicy(8, 1_000, bound), workers, **options)
    batcher.start()
    try:
        yield batcher
    finally:
        await batcher.stop()


def ticket_for(
    batcher: Batcher, item: int | Number, seconds: float = FAR
) -> "tuple[Work, asyncio.Future[int | RequestError]]":
    future: asyncio.Future[int | RequestError] = asyncio.get_running_loop().create_future()
    number = Number(item) if isinstance(item, int) else item
    return batcher.submit(number, deadline=perf_counter() + seconds, on_done=future.set_result), future


def submit(batcher: Batcher, item: int | Number, seconds: float = FAR) -> "asyncio.Future[int | RequestError]":
    """The outcome to be; a second outcome would be an error of the future's."""
    return ticket_for(batcher, item, seconds)[1]


async def occupy(batcher: Batcher, run: Doubler, item: int = 0) -> "asyncio.Future[int | RequestError]":
    """Have a worker stand at the gate."""
    run.close()
    first = submit(batcher, item)
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
        outcomes = await asyncio.gather(first, *futures)
        assert outcomes[:2] == [0, 2]
        assert outcomes[3:] == [4, 6]
        assert isinstance(outcomes[2], PipelineError)
        assert "ValueError" in str(outcomes[2])


@run_async
async def test_the_worker_survives_failures():
    async with batcher_of(Doubler()) as batcher:
        assert isinstance(await submit(batcher, 13), PipelineError)
        assert all(state.alive for state in batcher.worker_states())
        assert await submit(batcher, 4) == 8


@run_async
async def test_an_abandoned_item_is_never_run():
    run = Doubler()
    async with batcher_of(run) as batcher:
        first = await occupy(batcher, run)
        (ticket, abandoned), kept = ticket_for(batcher, 7), submit(batcher, 8)
        ticket.resolve(ClientGone("the connection was closed"))
        run.gate.set()
        assert await asyncio.gather(first, kept) == [0, 16]
        assert isinstance(await abandoned, ClientGone)
        assert run.batches == [[0], [8]]


@run_async
async def test_the_deadline_answers_even_while_the_worker_is_stuck_and_the_item_is_never_run():
    run = Doubler()
    async with batcher_of(run) as batcher:
        first = await occupy(batcher, run)
        assert isinstance(await submit(batcher, 7, seconds=0.001), DeadlineExceeded)
        run.gate.set()
        assert await first == 0
        assert await submit(batcher, 8) == 16
        assert run.batches == [[0], [8]]


@run_async
async def test_a_wrong_number_of_results_fails_everyone_clearly():
    async with batcher_of(lambda items, _: ([1] * (len(items) + 1), BatchCost([1], 0, 1, 0))) as batcher:
        outcome = await submit(batcher, 1)
        assert isinstance(outcome, PipelineError)
        assert "ValueError" in str(outcome)


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


# --- what there is to know ------------------------------------------------------------------------------------------


@run_async
async def test_a_forecast_is_idle_then_busy_then_full_and_idle_again():
    run = Doubler()
    async with batcher_of(run, bound=4) as batcher:
        assert batcher.forecast("caller", cached=False).idle
        first = await occupy(batcher, run)
        assert not batcher.forecast("caller", cached=False).idle
        waiting = [submit(batcher, item) for item in (1, 2)]
        assert batcher.forecast("caller", cached=False).full
        assert not batcher.forecast("another", cached=False).full
        run.gate.set()
        await asyncio.gather(first, *waiting)
        forecast = await asyncio.to_thread(lambda: wait_for_idle(batcher))
        assert forecast.idle
        assert not forecast.full


def wait_for_idle(batcher: Batcher) -> Forecast:
    """The worker reports its outcomes a moment before it takes note that it is idle, or after."""
    wait_until(lambda: batcher.running_batches == 0)
    return batcher.forecast("caller", cached=False)


@run_async
async def test_what_batches_cost_is_learned_and_told():
    told: list[tuple[object, BatchCost]] = []
    async with batcher_of(Doubler(), on_batch=lambda *ran: told.append(ran)) as batcher:
        batcher.learn(BatchCost([1], 0.5, 1, 0.25))
        assert batcher.forecast("caller", cached=True).predicted_s == pytest.approx(0.25)
        await submit(batcher, 1)
        await asyncio.to_thread(wait_until, lambda: len(told) == 1)
        assert told == [("release", BatchCost([1], 0.5, 1, 0.25))]
        assert batcher.forecast("caller", cached=False).predicted_s > 0.75


@run_async
async def test_only_the_parts_of_a_failed_batch_that_ran_are_learned():
    run, told = Doubler(), list[BatchCost]()
    async with batcher_of(run, on_batch=lambda _, cost: told.append(cost)) as batcher:
        first = await occupy(batcher, run)
        others = [submit(batcher, item) for item in (1, 13)]
        run.gate.set()
        await asyncio.gather(first, *others)
        await asyncio.to_thread(wait_until, lambda: len(told) == 2)
        assert [cost.queries for cost in told] == [1, 1]


@run_async
async def test_worker_states_say_who_is_busy_since_when():
    run = Doubler()
    async with batcher_of(run, workers=2) as batcher:
        assert [state.busy_since for state in batcher.worker_states()] == [None, None]
        assert all(state.alive for state in batcher.worker_states())
        assert not batcher.is_busy
        before = perf_counter()
        first = await occupy(batcher, run)
        assert batcher.is_busy
        [since] = [state.busy_since for state in batcher.worker_states() if state.busy_since is not None]
        assert before <= since <= perf_counter()
        assert batcher.running_batches == 1
        run.gate.set()
        await first


@run_async
async def test_two_workers_run_two_batches_at_once_each_of_one_release():
    run = Doubler()
    async with batcher_of(run, workers=2) as batcher:
        first = await occupy(batcher, run)
        run.entered.clear()
        items = [Number(number, group) for number, group in enumerate(["old", "new", "old", "new"], start=1)]
        second = submit(batcher, items[0])
        assert await asyncio.to_thread(run.entered.wait, 30)
        others = [submit(batcher, item) for item in items[1:]]
        run.gate.set()
        assert await asyncio.gather(first, second, *others) == [0, 2, 4, 6, 8]
        assert all(len({items[value - 1].group for value in batch if value}) <= 1 for batch in run.batches)


@run_async
async def test_a_query_that_another_worker_is_encoding_waits_for_its_embedding():
    run = Doubler()
    async with batcher_of(run, workers=2) as batcher:
        run.close()
        first = submit(batcher, Number(1, key="drill"))
        assert await asyncio.to_thread(run.entered.wait, 30)
        twin = submit(batcher, Number(1, key="drill"))
        other = submit(batcher, Number(3, key="mouse"))
        await asyncio.to_thread(wait_until, lambda: len(run.batches) == 2)
        assert run.batches == [[1], [3]]
        assert batcher.queued == 1
        run.gate.set()
        assert await asyncio.gather(first, twin, other) == [2, 2, 6]


# --- the loop runs what is alone ------------------------------------------------------------------------------------


@run_async
async def test_a_lone_item_is_run_by_the_loop_itself():
    run = Doubler()
    async with batcher_of(run, run_few_on_loop=True) as batcher:
        assert [await submit(batcher, item) for item in (1, 2)] == [2, 4]
        assert run.threads == [threading.current_thread()] * 2
        assert batcher.running_batches == 0


@run_async
async def test_a_few_that_come_together_are_run_by_the_loop_and_more_by_a_worker():
    run = Doubler()
    async with batcher_of(run, run_few_on_loop=True) as batcher:
        assert await asyncio.gather(*(submit(batcher, item) for item in (1, 2, 3))) == [2, 4, 6]
        assert (run.batches, run.threads) == ([[1, 2, 3]], [threading.current_thread()])
        assert await asyncio.gather(*(submit(batcher, item) for item in (1, 2, 3, 4))) == [2, 4, 6, 8]
        assert run.threads[1] is not threading.current_thread()


@run_async
async def test_an_item_beside_a_busy_worker_is_not_run_by_the_loop():
    run = Doubler()
    async with batcher_of(run, run_few_on_loop=True) as batcher:
        run.close()
        first = [submit(batcher, item) for item in (1, 2, 3, 4)]
        assert await asyncio.to_thread(run.entered.wait, 30)
        late = submit(batcher, 5, seconds=0.001)
        assert isinstance(await late, DeadlineExceeded)
        run.gate.set()
        assert await asyncio.gather(*first) == [2, 4, 6, 8]
        assert threading.current_thread() not in run.threads


@run_async
async def test_an_item_that_is_handed_over_keeps_its_deadline():
    run = Doubler()
    run.close()
    async with batcher_of(run, run_few_on_loop=True) as batcher:
        outcomes = [
            submit(batcher, item, seconds=0.05) for item in (1, 2, 3, 4)
        ]  # both to a worker, which stands at the gate
        assert all(isinstance(outcome, DeadlineExceeded) for outcome in await asyncio.gather(*outcomes))
        run.gate.set()


@run_async
async def test_a_lone_item_whose_time_is_over_is_answered_unrun():
    run = Doubler()
    async with batcher_of(run, run_few_on_loop=True) as batcher:
        assert isinstance(await submit(batcher, 1, seconds=-0.001), DeadlineExceeded)
        assert run.batches == []


@run_async
async def test_a_lone_item_that_fails_leaves_the_loop_as_it_was():
    async with batcher_of(Doubler(), run_few_on_loop=True) as batcher:
        assert isinstance(await submit(batcher, 13), PipelineError)
        assert await submit(batcher, 4) == 8


# --- workers that are stuck -----------------------------------------------------------------------------------------


@run_async
async def test_a_stuck_worker_is_replaced_and_those_it_kept_are_answered():
    run = Doubler()
    stuck = run.gate
    told: list[BatchCost] = []
    async with batcher_of(run, on_batch=lambda _, cost: told.append(cost)) as batcher:
        first = await occupy(batcher, run)
        waiting = submit(batcher, 5)
        run.gate = threading.Event()
        run.gate.set()
        [before] = batcher.worker_states()
        batcher.replace(before.name)
        assert isinstance(await first, PipelineError)
        assert await waiting == 10
        [after] = batcher.worker_states()
        assert after.name != before.name
        assert all(state.alive for state in batcher.worker_states())
        await asyncio.to_thread(wait_until, lambda: len(told) == 1)
        stuck.set()
        await asyncio.to_thread(run.threads[0].join, 30)
        assert len(told) == 1  # what the stuck batch took at last is not learned
        assert not run.threads[0].is_alive()
        assert await submit(batcher, 6) == 12
        await asyncio.to_thread(wait_until, lambda: len(told) == 2)


@run_async
async def test_an_idle_worker_that_is_replaced_takes_nothing_more():
    run = Doubler()
    async with batcher_of(run) as batcher:
        assert await submit(batcher, 1) == 2
        [before] = batcher.worker_states()
        batcher.replace(before.name)
        assert await asyncio.gather(*(submit(batcher, item) for item in range(20, 48))) == list(range(40, 96, 2))
        await asyncio.to_thread(run.threads[0].join, 30)
        assert not run.threads[0].is_alive()
        assert run.threads[0] not in run.threads[1:]


@run_async
async def test_an_idle_worker_keeps_nothing_of_its_last_batch():
    async with batcher_of(Doubler()) as batcher:
        item = Number(7)
        gone = weakref.ref(item)
        assert await submit(batcher, item) == 14
        del item
        await asyncio.to_thread(wait_for_idle, batcher)
        await asyncio.to_thread(wait_until, lambda: gc.collect() >= 0 and gone() is None)


@run_async
async def test_what_is_given_up_frees_its_place_at_once():
    run = Doubler()
    async with batcher_of(run) as batcher:
        first = await occupy(batcher, run)
        waiting = [ticket_for(batcher, item) for item in (1, 2)]
        assert batcher.queued == 2
        for ticket, _ in waiting:
            ticket.resolve(ClientGone("the connection was closed"))
        assert batcher.queued == 0
        run.gate.set()
        assert await first == 0


@run_async
async def test_what_the_loop_itself_finished_after_the_deadline_is_no_answer():
    run = Doubler()
    deadline = perf_counter() + 0.02

    def outlast(items: Sequence[Number], encoded: Callable[[], None]) -> tuple[list[int], BatchCost]:
        wait_until(lambda: perf_counter() > deadline)
        return run(items, encoded)

    async with batcher_of(outlast, run_few_on_loop=True) as batcher:
        assert isinstance(await submit(batcher, 1, deadline - perf_counter()), DeadlineExceeded)
        assert run.batches == [[1]]


# --- where a device encodes -----------------------------------------------------------------------------------------


class TwoStages:
    """Encodes and searches at two gates, and counts who stands at which."""

    def __init__(self) -> None:
        self.may_encode, self.may_search = threading.Semaphore(0), threading.Semaphore(0)
        self.encoding = self.searching = 0
        self._lock = threading.Lock()

    def __call__(self, items: Sequence[Number], encoded: Callable[[], None]) -> tuple[list[int], BatchCost]:
        with self._lock:
            self.encoding += 1
        assert self.may_encode.acquire(timeout=30)
        with self._lock:
            self.encoding -= 1
            self.searching += 1
        encoded()
        assert self.may_search.acquire(timeout=30)
        with self._lock:
            self.searching -= 1
        return [item.value * 2 for item in items], BatchCost([1] * len(items), 0.5, len(items), 0.25)

    def open(self) -> None:
        self.may_encode.release(100)
        self.may_search.release(100)


async def until(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_until, condition)


@run_async
async def test_queries_wait_in_the_queue_for_a_place_on_the_device_and_others_search_meanwhile():
    run = TwoStages()
    async with batcher_of(run, workers=4, batches_in_flight=2) as batcher:
        outcomes = []
        for number in range(2):
            outcomes.append(submit(batcher, number))
            await until(lambda: run.encoding == len(outcomes))
        outcomes += [submit(batcher, number) for number in range(2, 6)]
        assert batcher.queued == 4  # two workers are idle, but what they took now could grow no more
        run.may_encode.release()
        await until(lambda: (run.encoding, run.searching, batcher.queued) == (2, 1, 0))  # the four went together
        run.open()
        assert await asyncio.gather(*outcomes) == [0, 2, 4, 6, 8, 10]


@run_async
async def test_a_batch_that_fails_gives_its_place_on_the_device_back():
    run = Doubler()
    async with batcher_of(run, workers=2, batches_in_flight=1) as batcher:
        assert isinstance(await submit(batcher, 13), PipelineError)
        assert await submit(batcher, 5) == 10


class FaultyDevice:
    """Fails with batches of several rows, or with all, as a device does."""

    def __init__(self, fault: DeviceFaultError, largest: int) -> None:
        self.fault, self.largest = fault, largest
        self.sizes: list[int] = []

    def __call__(self, items: Sequence[Number], encoded: Callable[[], None]) -> tuple[list[int], BatchCost]:
        self.sizes.append(len(items))
        if len(items) > self.largest:
            raise self.fault
        return [item.value * 2 for item in items], BatchCost([1] * len(items), 0.5, len(items), 0.25)


async def outcomes_of_four(device: FaultyDevice) -> "tuple[list[int | RequestError], list[Exception]]":
    heard: list[Exception] = []
    async with batcher_of(device, on_failure=heard.append) as batcher:
        with batcher._changed:  # no worker takes one before all have come
            outcomes = [submit(batcher, number) for number in range(4)]
        return await asyncio.gather(*outcomes), heard


@run_async
async def test_a_batch_that_a_device_has_no_memory_for_is_tried_smaller():
    device = FaultyDevice(DeviceOutOfMemoryError("full"), 2)
    answers, heard = await outcomes_of_four(device)
    assert answers == [0, 2, 4, 6]
    assert (device.sizes, heard) == ([4, 2, 2], [device.fault])


@run_async
async def test_on_a_lost_device_no_part_of_a_batch_is_tried_again():
    device = FaultyDevice(DeviceLostError("gone"), 0)
    answers, heard = await outcomes_of_four(device)
    assert all(isinstance(answer, PipelineError) for answer in answers)
    assert (device.sizes, heard) == ([4], [device.fault])
