"""The watchdog: its rules with a clock that is moved by hand, and its thread with a real event loop."""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from service.metrics import Metrics
from service.probe import Probe
from service.watchdog import (
    BEAT_S,
    CHECK_S,
    MOST_RESTARTS,
    RESTART_WINDOW_S,
    SILENT_S,
    Heartbeat,
    Watchdog,
    thread_stacks,
)
from tests.waiting import wait_until

STALL_S = 1.5


@dataclass
class State:
    name: str
    alive: bool = True
    busy_since: float | None = None


@dataclass
class Workers:
    """A batcher's workers, as the test sets them."""

    states: list[State]
    oldest_s: float = 0.0
    heals: bool = True
    """Whether a fresh worker is a well one."""
    replaced: list[str] = field(default_factory=list)

    def worker_states(self) -> list[State]:
        return [State(state.name, state.alive, state.busy_since) for state in self.states]

    def replace(self, name: str) -> None:
        self.replaced.append(name)
        [at] = [number for number, state in enumerate(self.states) if state.name == name]
        fresh = f"worker-{len(self.states) - 1 + len(self.replaced)}"
        self.states[at] = State(fresh) if self.heals else State(fresh, alive=False)


class Watched:
    """A watchdog over made-up workers; an engine that always proves itself; time moved by hand."""

    def __init__(self, count: int = 2, *, heals: bool = True) -> None:
        self.now = 100.0
        self.loop_turns = True
        self.workers = Workers([State(f"worker-{number}") for number in range(count)], heals=heals)
        self.metrics = Metrics()
        self.probe = Probe(lambda: None, self.metrics, limit_s=STALL_S, clock=lambda: self.now)
        self.watchdog = Watchdog(self.workers, self.probe, self.metrics, stall_s=STALL_S, clock=lambda: self.now)

    def run(self, seconds: float, *, proving: bool = True) -> None:
        """Let time pass with a check every quarter of a second."""
        for _ in range(round(seconds / CHECK_S)):
            self.now += CHECK_S
            if self.loop_turns:
                self.watchdog._heartbeat.beat_at = self.now
            if proving:
                self.probe.proved()
            self.watchdog.check()

    def count(self, name: str, labels: dict[str, str] | None = None) -> float:
        value = self.metrics.registry.get_sample_value(name, labels or {})
        assert value is not None
        return value


def test_all_is_well_with_batches_that_end():
    watched = Watched()
    for _ in range(100):
        watched.workers.states[0].busy_since = watched.now
        watched.run(1)
        watched.workers.states[0].busy_since = None
        watched.run(0.25)
        assert watched.watchdog.problems == ()
    assert watched.workers.replaced == []


def test_a_stuck_worker_is_found_in_less_than_two_seconds_and_replaced():
    watched = Watched()
    watched.workers.states[0].busy_since = stuck_at = watched.now + 0.01
    while not watched.watchdog.problems:
        watched.run(CHECK_S, proving=False)
    assert watched.now - stuck_at < 2
    assert watched.watchdog.problems == ("worker-0 is stuck in a batch",)
    assert watched.watchdog.live
    assert watched.workers.replaced == ["worker-0"]
    assert watched.count("hlm_worker_stalls_total") == watched.count("hlm_worker_restarts_total") == 1


def test_after_a_replacement_it_is_ready_again_when_the_engine_has_answered_and_not_before():
    watched = Watched()
    watched.workers.states[0].busy_since = watched.now
    watched.run(STALL_S, proving=False)
    watched.run(1, proving=False)
    assert watched.watchdog.problems == ("nothing was answered since a worker was replaced",)
    watched.run(CHECK_S)
    assert watched.watchdog.problems == ()


def test_a_dead_worker_is_replaced_at_once():
    watched = Watched()
    watched.workers.states[1].alive = False
    watched.run(CHECK_S)
    assert watched.watchdog.problems[0] == "worker-1 has died"
    assert watched.workers.replaced == ["worker-1"]
    watched.run(CHECK_S)
    assert watched.watchdog.problems == ()


def test_workers_that_cannot_be_restarted_are_not_live_and_are_left_alone():
    watched = Watched(count=1, heals=False)
    watched.workers.states[0].alive = False
    watched.run(MOST_RESTARTS * CHECK_S)
    assert watched.watchdog.live
    watched.run(5)
    assert not watched.watchdog.live
    assert len(watched.workers.replaced) == MOST_RESTARTS


def test_live_comes_back_when_the_last_stuck_batch_ends_after_all():
    watched = Watched(count=1)
    for _ in range(MOST_RESTARTS + 1):
        watched.workers.states[0].busy_since = watched.now
        watched.run(STALL_S)
    assert not watched.watchdog.live
    watched.workers.states[0].busy_since = None
    watched.run(CHECK_S)
    assert watched.watchdog.live
    assert watched.watchdog.problems == ()


def test_a_worker_that_sticks_now_and_then_is_replaced_for_ever():
    watched = Watched(count=1)
    for _ in range(3 * MOST_RESTARTS):
        watched.workers.states[0].busy_since = watched.now
        watched.run(STALL_S)
        assert watched.watchdog.live
        watched.run(RESTART_WINDOW_S / MOST_RESTARTS)
    assert len(watched.workers.replaced) == 3 * MOST_RESTARTS


def test_a_process_that_stood_still_as_a_whole_blames_no_part_of_itself():
    watched = Watched()
    watched.workers.states[0].busy_since = watched.now
    watched.run(1)
    watched.now += 3600
    watched.watchdog.check()
    watched.run(1)
    assert watched.watchdog.problems == ()
    watched.run(1)
    assert watched.workers.replaced == ["worker-0"]


def test_an_event_loop_that_stands_still_is_a_problem_that_goes_away_with_its_cause():
    watched = Watched()
    watched.loop_turns = False
    watched.run(STALL_S)
    assert watched.watchdog.problems == ("the event loop stands still",)
    assert watched.workers.replaced == []
    watched.loop_turns = True
    watched.run(CHECK_S)
    assert watched.watchdog.problems == ()


def test_queries_that_wait_while_every_worker_sleeps_wake_a_fresh_one():
    watched = Watched()
    watched.workers.oldest_s = STALL_S
    watched.run(2 * CHECK_S)
    assert watched.watchdog.problems[0] == "queries wait while every worker is idle"
    assert watched.workers.replaced == ["worker-0"]


def test_a_long_queue_in_front_of_busy_workers_is_no_stall():
    watched = Watched()
    watched.workers.oldest_s = 5.0
    for number in range(100):
        for state in watched.workers.states:  # every other check happens to come between two batches
            state.busy_since = watched.now if number % 2 else None
        watched.run(CHECK_S)
    assert watched.workers.replaced == []


def test_a_stall_is_counted_and_logged_once_with_the_stacks(caplog: pytest.LogCaptureFixture):
    watched = Watched(count=1, heals=False)
    watched.workers.states[0].alive = False
    watched.run(10)
    stalls = [record for record in caplog.records if record.message.startswith("stalled: ")]
    assert len(stalls) == watched.count("hlm_worker_stalls_total") == MOST_RESTARTS + 1
    assert any("check" in frame for frame in stalls[0].stacks["MainThread"])  # type: ignore[attr-defined]


def test_a_watchdog_that_no_longer_checks_is_a_problem_itself():
    watched = Watched()
    watched.run(1)
    watched.now += SILENT_S + 0.1
    assert watched.watchdog.problems == ("the watchdog is silent",)


def test_stacks_are_by_thread_and_say_where_each_is():
    gate = threading.Event()

    def wait_at_the_gate() -> None:
        gate.wait(30)

    thread = threading.Thread(target=wait_at_the_gate, name="waiting")
    thread.start()
    wait_until(lambda: any("wait_at_the_gate" in frame for frame in thread_stacks()["waiting"]))
    gate.set()
    thread.join()


def test_the_lag_is_by_how_much_a_beat_comes_late():
    now = 0.0

    async def lag_of_one_beat() -> float:
        nonlocal now
        lag: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        heartbeat = Heartbeat(lag.set_result, clock=lambda: now)
        heartbeat.start()
        now = BEAT_S + 0.03
        try:
            return await lag
        finally:
            heartbeat.stop()

    assert asyncio.run(asyncio.wait_for(lag_of_one_beat(), 30)) == pytest.approx(0.03)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    gate = threading.Event()
    yield gate
    gate.set()


def test_the_thread_sees_a_real_loop_stand_still_and_turn_again(gate: threading.Event):
    metrics = Metrics()
    workers = Workers([State("worker-0")])
    probe = Probe(lambda: None, metrics, limit_s=STALL_S)
    watchdog = Watchdog(workers, probe, metrics, stall_s=0.3)

    async def stand_still() -> None:
        watchdog.start()
        loop = asyncio.get_running_loop()
        observer = loop.run_in_executor(None, observe)
        loop.call_soon(gate.wait, 30)
        await observer
        watchdog.stop()

    def observe() -> None:
        wait_until(lambda: "the event loop stands still" in watchdog.problems)
        gate.set()
        wait_until(lambda: watchdog.problems == ())

    asyncio.run(asyncio.wait_for(stand_still(), 60))
    value = metrics.registry.get_sample_value("hlm_event_loop_lag_seconds_count")
    assert value is not None
    assert value >= 1
