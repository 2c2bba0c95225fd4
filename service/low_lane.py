"""Work that must never delay a request: threads that the kernel runs only while no other thread wants their core.

    event loop                         low lane (SCHED_IDLE)
    offer(job) ──> bounded, or dropped ─┐
    await run(job) ──> in turn ─────────┴─> take one of each in turn, run it, deliver

The kernel takes the core away from such a thread the moment another wakes, and a job's native code (onnxruntime,
hnswlib, BLAS) holds nothing that the other needs. Python code holds the interpreter's lock: a request waits for the
rest of that stretch. So jobs are short, and call `breathe` between stretches of Python.

What event loop and lane share is guarded by the interpreter's lock alone (deques and a `SimpleQueue`). A lock of our
own would be another that a thread without a core could hold.
"""

import asyncio
import contextlib
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from service.lane_metrics import LaneMetrics

T = TypeVar("T")

OFFERS = 64
"""Offered jobs that may wait: a second of work at most, so that what they hold in memory is small and recent."""

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Awaited(Generic[T]):
    """A job and the future of the coroutine that waits for it."""

    job: Callable[[], T]
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[T]"


class LowLane:
    """Runs jobs on threads of idle priority, from `start` to `stop`."""

    def __init__(self, metrics: LaneMetrics, *, threads: int = 1, bound: int = OFFERS) -> None:
        """Prepare; nothing runs before `start`.

        Args:
            metrics: counts the jobs.
            threads: how many jobs run side by side.
            bound: most offered jobs that wait; one more is dropped.
        """
        self._metrics = metrics
        self._bound = bound
        self._offered: deque[Callable[[], object]] = deque()
        self._awaited: deque[_Awaited[Any]] = deque()
        self._waiting: SimpleQueue[None] = SimpleQueue()
        """One entry for each job in either deque, and one for each thread that is to end."""
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._work, name=f"low-lane-{number}", daemon=True) for number in range(threads)
        ]
        metrics.observe_queue(lambda: self.queued)

    @property
    def queued(self) -> int:
        """Jobs that wait."""
        return len(self._offered) + len(self._awaited)

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    async def stop(self, timeout_s: float = 60.0) -> None:
        """End the threads after the job each is running; what waits is dropped, and who awaits it is cancelled.

        A thread that is not done after `timeout_s` is left behind.
        """
        self._stopping = True
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            if thread.is_alive():
                await asyncio.to_thread(thread.join, timeout_s)
        self._offered.clear()
        for awaited in self._awaited:
            awaited.future.cancel()
        self._awaited.clear()

    def offer(self, job: Callable[[], object]) -> bool:
        """Run a job some time, from any thread; False, and the job is dropped, where too many wait already."""
        if self._stopping or len(self._offered) >= self._bound:
            self._metrics.job("dropped")
            return False
        self._offered.append(job)
        self._waiting.put(None)
        return True

    async def run(self, job: Callable[[], T]) -> T:
        """Run a job and return what it returns, or raise what it raises; jobs of several callers take turns.

        Cancelled before the job starts, it never runs.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        if self._stopping:
            future.cancel()
        else:
            self._awaited.append(_Awaited(job, loop, future))
            self._waiting.put(None)
        return await future

    def _work(self) -> None:
        lower_own_priority()
        offered_next = False
        while True:
            self._waiting.get()
            if self._stopping:
                return
            offered_next = not offered_next
            self._run_next(offered_next)

    def _run_next(self, offered_first: bool) -> None:
        """Run one job; of the two kinds in turn, so that neither starves the other."""
        while True:
            for offered in (offered_first, not offered_first):
                try:
                    if offered:
                        self._run_offered(self._offered.popleft())
                    else:
                        self._run_awaited(self._awaited.popleft())
                except IndexError:  # none of this kind; the entry in `_waiting` says that there is one
                    continue
                return

    def _run_offered(self, job: Callable[[], object]) -> None:
        try:
            job()
        except Exception:  # this loop must survive whatever a job does
            logger.exception("a job of the low lane failed")
            self._metrics.job("failed")
        else:
            self._metrics.job("done")

    def _run_awaited(self, awaited: _Awaited[Any]) -> None:
        if awaited.future.done():  # given up while it waited
            self._metrics.job("cancelled")
            return
        try:
            deliver = partial(_set_result, awaited.future, awaited.job())
        except Exception as error:  # whoever awaits it decides what that means
            deliver = partial(_set_exception, awaited.future, error)
        self._metrics.job("done")
        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it whoever awaited this
            awaited.loop.call_soon_threadsafe(deliver)


def lower_own_priority() -> None:
    """Have the calling thread, and those that it starts, give way to all others, as far as the system lets it."""
    if sys.platform != "linux":  # elsewhere priorities belong to processes
        logger.warning("low-priority work runs at normal priority: this system has no lower one for a thread")
        return
    thread_id = threading.get_native_id()
    try:
        os.sched_setscheduler(thread_id, os.SCHED_IDLE, os.sched_param(0))
    except OSError as error:
        os.setpriority(os.PRIO_PROCESS, thread_id, 19)  # to be nicer is never refused
        logger.warning("low-priority work runs at nice 19: idle priority was refused (%s)", error)


def breathe() -> None:
    """Let go of the interpreter's lock, between two stretches of Python in a job."""
    time.sleep(0)


def _set_result(future: "asyncio.Future[object]", result: object) -> None:
    if not future.done():
        future.set_result(result)


def _set_exception(future: "asyncio.Future[object]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
