"""Notices what no request can tell: a loop that does not turn, a worker that is stuck or dead, an engine that fails.

    event loop ── beats ──> Heartbeat ──┐
    batcher ── worker_states ───────────┼──> Judge ──> not ready, fresh workers, at last not live
    Probe ── problem ───────────────────┘    (a plain thread, four times a second)

The thread is not the event loop's, so it sees the loop stand still. What it finds is published before it is logged: a
log that nobody reads must not hide it.
"""

import asyncio
import faulthandler
import logging
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

from service.metrics import WORKER_STATES, Metrics
from service.probe import Probe

CHECK_S = 0.25
BEAT_S = 0.1
LONGEST_GAP_S = 1.0
"""Two checks further apart than this: the whole process stood still, as in a paused container; no part is to blame."""
MOST_RESTARTS = 3
RESTART_WINDOW_S = 600.0
"""So many workers are replaced in so long: a stuck thread cannot be ended, and costs its memory and perhaps a core."""
SILENT_S = 5.0
"""After so long without a check, the watchdog itself is what is wrong."""
FROZEN_S = 10.0
"""After this long without one, native code holds the interpreter; faulthandler can print stacks without it."""

logger = logging.getLogger(__name__)


class WorkerState(Protocol):
    """What a worker is doing."""

    @property
    def name(self) -> str:
        """Its own among those of the process, replaced ones included."""

    @property
    def alive(self) -> bool:
        """Whether its thread runs."""

    @property
    def busy_since(self) -> float | None:
        """When it started its batch, in seconds of `perf_counter`; None while it waits for one."""


class Workers(Protocol):
    """The batcher, as far as it is watched; called from the watchdog's thread."""

    @property
    def oldest_s(self) -> float:
        """For how long the oldest query has been queued; 0 when there is none."""

    def worker_states(self) -> Sequence[WorkerState]:
        """What each worker is doing now."""

    def replace(self, name: str) -> None:
        """Put a fresh thread in the place of a dead or stuck worker."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What a check sees; seconds of one clock."""

    now: float
    beat_at: float
    """When the event loop last turned."""
    workers: Sequence[WorkerState]
    oldest_s: float
    resumed_at: float = float("-inf")
    """Since when the process has been running without standing still as a whole."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong."""

    worker: str | None
    """None: the event loop."""
    since: float | None
    """Tells one stall from the next of the same worker."""
    problem: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check concludes."""

    findings: tuple[Finding, ...]
    new: tuple[Finding, ...]
    """Those that the check before did not have."""
    replace: tuple[str, ...]
    """Workers to replace now."""
    live: bool
    """False where a worker should be replaced and too many were: only a new process can help."""


class Judge:
    """The rules, without threads and clock: called with one sight after the other."""

    def __init__(self, stall_s: float) -> None:
        """Take the time after which what has not moved is stalled."""
        self._stall_s = stall_s
        self._restarts: list[float] = []
        self._known: frozenset[Finding] = frozenset()
        self._waited_before = False

    def judge(self, sight: Sight) -> Verdict:
        """Conclude from what is seen now and what was seen before."""
        findings = (*self._about_loop(sight), *self._about_workers(sight), *self._about_wake_ups(sight))
        faulty = [finding.worker for finding in findings if finding.worker is not None]
        self._restarts = [when for when in self._restarts if sight.now - when < RESTART_WINDOW_S]
        replace = faulty[: MOST_RESTARTS - len(self._restarts)]
        self._restarts += [sight.now] * len(replace)
        new = tuple(finding for finding in findings if finding not in self._known)
        self._known = frozenset(findings)
        return Verdict(findings, new, tuple(replace), live=len(replace) == len(faulty))

    def _about_loop(self, sight: Sight) -> Iterator[Finding]:
        if self._is_stalled(sight.beat_at, sight):
            yield Finding(None, sight.beat_at, "the event loop stands still")

    def _about_workers(self, sight: Sight) -> Iterator[Finding]:
        for worker in sight.workers:
            if not worker.alive:
                yield Finding(worker.name, None, f"{worker.name} has died")
            elif worker.busy_since is not None and self._is_stalled(worker.busy_since, sight):
                yield Finding(worker.name, worker.busy_since, f"{worker.name} is stuck in a batch")

    def _about_wake_ups(self, sight: Sight) -> Iterator[Finding]:
        """A wake-up that was lost; a fresh worker looks at the queue before it sleeps."""
        idle = [worker.name for worker in sight.workers if worker.alive and worker.busy_since is None]
        waits = sight.oldest_s >= self._stall_s and len(idle) == len(sight.workers) > 0
        if waits and self._waited_before:  # twice in a row, as every worker is idle for a moment between two batches
            yield Finding(idle[0], None, "queries wait while every worker is idle")
        self._waited_before = waits

    def _is_stalled(self, since: float, sight: Sight) -> bool:
        return sight.now - max(since, sight.resumed_at) >= self._stall_s


class Heartbeat:
    """Beats on the event loop and measures how late each beat comes."""

    def __init__(self, observe_lag: Callable[[float], None], clock: Callable[[], float] = perf_counter) -> None:
        """Prepare; `observe_lag` gets the seconds by which each beat was late."""
        self._observe_lag = observe_lag
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None
        self.beat_at = clock()

    def start(self) -> None:
        """Beat from now on; called on the event loop."""
        self.beat_at = self._clock()
        self._timer = asyncio.get_running_loop().call_later(BEAT_S, self._beat)

    def stop(self) -> None:
        """Beat no more; called on the event loop."""
        if self._timer is not None:
            self._timer.cancel()

    def _beat(self) -> None:
        now = self._clock()
        self._observe_lag(max(0.0, now - self.beat_at - BEAT_S))
        self.beat_at = now
        self._timer = asyncio.get_running_loop().call_later(BEAT_S, self._beat)


class Watchdog:
    """Checks until it is stopped; `problems` and `live` are what its last check found."""

    def __init__(
        self,
        workers: Workers,
        probe: Probe,
        metrics: Metrics,
        *,
        stall_s: float,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        """Prepare; nothing runs before `start`."""
        self._workers = workers
        self._probe = probe
        self._metrics = metrics
        self._clock = clock
        self._judge = Judge(stall_s)
        self._heartbeat = Heartbeat(metrics.loop_lagged, clock)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._checked_at = clock()
        self._resumed_at = float("-inf")
        self._problems: tuple[str, ...] = ()
        self.live = True
        """False where only a new process can help."""

    @property
    def problems(self) -> tuple[str, ...]:
        """Why no requests should come; empty while all is well."""
        if self._clock() - self._checked_at > SILENT_S:
            return (*self._problems, "the watchdog is silent")
        return self._problems

    def start(self) -> None:
        """Watch from now on; called on the event loop, when the workers run."""
        self._checked_at = self._clock()
        self._heartbeat.start()
        self._metrics.observe_workers(self._worker_counts, lambda: self._workers.oldest_s)
        self._thread.start()

    def stop(self) -> None:
        """Watch no more; called on the event loop, before the workers end."""
        self._heartbeat.stop()
        self._stopping.set()

    def check(self) -> None:
        """Look once, publish what was found, and act on it."""
        now = self._clock()
        if now - self._checked_at > LONGEST_GAP_S:
            self._resumed_at = now
        self._checked_at = now
        self._probe.tick(now, self._resumed_at)
        states, oldest_s = self._workers.worker_states(), self._workers.oldest_s
        verdict = self._judge.judge(Sight(now, self._heartbeat.beat_at, states, oldest_s, self._resumed_at))
        before = self._problems
        self._publish(verdict)
        stacks = thread_stacks() if verdict.new else {}  # while those that are stuck still are
        for name in verdict.replace:
            self._replace(name)
        for finding in verdict.new:
            logger.error("stalled: %s", finding.problem, extra={"stacks": stacks})
        if self._problems and not before:
            logger.error("not ready: %s", "; ".join(self._problems))
        elif before and not self._problems:
            logger.info("ready again")

    def _publish(self, verdict: Verdict) -> None:
        found = [finding.problem for finding in verdict.findings]
        self._problems = (*found, self._probe.problem) if self._probe.problem else tuple(found)
        self.live = verdict.live and not self._probe.hopeless
        for finding in verdict.new:
            if finding.worker is not None:
                self._metrics.worker_stalled()

    def _replace(self, name: str) -> None:
        self._probe.doubt("nothing was answered since a worker was replaced")
        self._metrics.worker_restarted()
        self._workers.replace(name)

    def _watch(self) -> None:
        while not self._stopping.wait(CHECK_S):
            if sys.__stderr__ is not None:
                faulthandler.dump_traceback_later(FROZEN_S, file=sys.__stderr__)
            try:
                self.check()
            except Exception:  # whoever watches must not be what fails
                logger.exception("a check of the watchdog failed")
        faulthandler.cancel_dump_traceback_later()

    def _worker_counts(self) -> dict[str, int]:
        counts = dict.fromkeys(WORKER_STATES, 0)
        for state in self._workers.worker_states():
            counts["dead" if not state.alive else "idle" if state.busy_since is None else "busy"] += 1
        return counts


def thread_stacks() -> dict[str, list[str]]:
    """Where each thread is now, innermost last, by the thread's name."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return {
        f"{names.get(ident, 'unknown')}": [
            f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_stack(top)
        ]
        for ident, top in sys._current_frames().items()  # noqa: SLF001 - documented, "for specialized purposes"
    }
