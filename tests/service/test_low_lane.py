"""The low lane with real threads and a real loop; a gate in place of slow work, so that nothing sleeps."""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from service.lane_metrics import LaneMetrics
from service.low_lane import LowLane
from service.metrics import OUTCOMES
from tests.waiting import wait_until


class Gate:
    """A job that says when it has begun and ends when it may."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self) -> str:
        self.entered.set()
        assert self.opened.wait(timeout=30)
        return "through"


class Lane(LowLane):
    """A lane, and what its metrics say."""

    def __init__(self, bound: int) -> None:
        self.registry = CollectorRegistry()
        super().__init__(LaneMetrics(self.registry, OUTCOMES), bound=bound)

    def jobs(self, result: str) -> float:
        value = self.registry.get_sample_value("hlm_low_lane_jobs_total", {"result": result})
        assert value is not None
        return value


@asynccontextmanager
async def lane_of(bound: int = 100) -> AsyncIterator[Lane]:
    lane = Lane(bound)
    lane.start()
    try:
        yield lane
    finally:
        await lane.stop()


async def occupy(lane: LowLane) -> tuple[Gate, "asyncio.Task[str]"]:
    """Have the only thread stand at a gate."""
    gate = Gate()
    running = asyncio.create_task(lane.run(gate))
    await asyncio.to_thread(gate.entered.wait)
    return gate, running


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


def test_what_a_job_returns_comes_back_and_what_it_raises_is_raised():
    async def test() -> None:
        async with lane_of() as lane:
            assert await lane.run(lambda: 6 * 7) == 42
            with pytest.raises(ZeroDivisionError):
                await lane.run(lambda: 1 // 0)
            assert await lane.run(lambda: "still there") == "still there"

    run(test)


@pytest.mark.skipif(sys.platform != "linux", reason="priorities belong to processes elsewhere")
def test_jobs_run_at_idle_priority_and_nothing_else_does():
    async def test() -> None:
        async with lane_of() as lane:
            assert await lane.run(lambda: os.sched_getscheduler(threading.get_native_id())) == os.SCHED_IDLE
            assert os.sched_getscheduler(threading.get_native_id()) == os.SCHED_OTHER

    run(test)


@pytest.mark.skipif(sys.platform != "linux", reason="priorities belong to processes elsewhere")
def test_where_idle_priority_is_refused_jobs_are_as_nice_as_can_be(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise PermissionError

    async def test() -> None:
        async with lane_of() as lane:
            niceness = await lane.run(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
            assert niceness == 19
            assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) < 19

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    run(test)


def test_what_is_offered_beyond_the_bound_is_dropped_and_counted():
    async def test() -> None:
        done: list[int] = []
        async with lane_of(bound=2) as lane:
            gate, running = await occupy(lane)
            assert [lane.offer(lambda number=number: done.append(number)) for number in range(4)] == [1, 1, 0, 0]
            assert lane.queued == 2
            assert lane.registry.get_sample_value("hlm_low_lane_queued_jobs") == 2
            assert lane.jobs("dropped") == 2
            gate.opened.set()
            await running
            await asyncio.to_thread(wait_until, lambda: len(done) == 2)
            assert lane.offer(lambda: done.append(4))
            await asyncio.to_thread(wait_until, lambda: len(done) == 3)
        assert done == [0, 1, 4]

    run(test)


def test_a_failing_offer_harms_no_other():
    async def test() -> None:
        async with lane_of() as lane:
            lane.offer(lambda: 1 // 0)
            assert await lane.run(lambda: "alive") == "alive"
            await asyncio.to_thread(wait_until, lambda: lane.jobs("failed") == 1)

    run(test)


def test_offered_and_awaited_jobs_take_turns_and_each_kind_keeps_its_order():
    async def test() -> None:
        ran: list[str] = []
        async with lane_of() as lane:
            gate, running = await occupy(lane)
            awaited = [asyncio.create_task(lane.run(lambda n=n: ran.append(f"awaited {n}"))) for n in range(2)]
            for n in range(4):
                lane.offer(lambda n=n: ran.append(f"offered {n}"))
            await asyncio.sleep(0)
            gate.opened.set()
            await asyncio.gather(running, *awaited)
            await asyncio.to_thread(wait_until, lambda: len(ran) == 6)
        kinds = [entry.split()[0] for entry in ran]
        assert set(kinds[:2]) == set(kinds[2:4]) == {"awaited", "offered"}
        assert [entry for entry in ran if "offered" in entry] == [f"offered {n}" for n in range(4)]
        assert [entry for entry in ran if "awaited" in entry] == ["awaited 0", "awaited 1"]

    run(test)


def test_callers_that_each_await_job_after_job_take_turns():
    async def test() -> None:
        ran: list[str] = []

        async def caller(name: str) -> None:
            for _ in range(3):
                await lane.run(lambda: ran.append(name))

        async with lane_of() as lane:
            gate, running = await occupy(lane)
            callers = [asyncio.create_task(caller(name)) for name in "ab"]
            await asyncio.sleep(0)
            gate.opened.set()
            await asyncio.gather(running, *callers)
        assert ran == ["a", "b"] * 3

    run(test)


def test_a_job_that_is_cancelled_while_it_waits_never_runs():
    async def test() -> None:
        ran: list[str] = []
        async with lane_of() as lane:
            gate, running = await occupy(lane)
            given_up = asyncio.create_task(lane.run(lambda: ran.append("given up")))
            kept = asyncio.create_task(lane.run(lambda: ran.append("kept")))
            await asyncio.sleep(0)
            given_up.cancel()
            await asyncio.sleep(0)
            gate.opened.set()
            await asyncio.gather(running, kept)
            assert given_up.cancelled()
            assert lane.jobs("cancelled") == 1
        assert ran == ["kept"]

    run(test)


def test_stopping_finishes_the_running_job_cancels_who_waits_and_refuses_offers():
    async def test() -> None:
        lane = Lane(bound=10)
        lane.start()
        gate, running = await occupy(lane)
        waiting = asyncio.create_task(lane.run(lambda: "never"))
        lane.offer(lambda: pytest.fail("ran after the stop"))
        await asyncio.sleep(0)
        stopping = asyncio.create_task(lane.stop())
        await asyncio.sleep(0)
        gate.opened.set()
        await stopping
        assert await running == "through"
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with pytest.raises(asyncio.CancelledError):
            await lane.run(lambda: "too late")
        assert not lane.offer(lambda: None)
        assert lane.queued == 0

    run(test)


def test_a_lane_that_never_started_stops():
    run(lambda: Lane(bound=1).stop())
