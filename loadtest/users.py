"""Locust's users of `POST /retrieve`, open and closed loop.

A closed-loop user asks its next query as soon as it has its answer: it waits out a stall of the server and asks nothing
meanwhile. An open-loop user is a source of arrivals: its requests leave when they are due, whether or not earlier ones
were answered, and their latency counts from then, so that a stall is seen by all who would have met it.
"""

import itertools
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import gevent
from gevent.pool import Pool
from locust import FastHttpUser, task
from locust.env import Environment
from locust.exception import StopUser

from loadtest.answers import judge
from loadtest.load import Load
from loadtest.recorder import Recorder
from loadtest.replay import Logged, read_log
from loadtest.traffic import Source, Traffic

SLACK_S = 5.0
"""How long after `timeout_ms` a user gives up waiting for the service's own refusal."""
MOST_IN_FLIGHT = 4_096
"""Of one open-loop user; arrivals beyond wait, and their latency goes on counting."""
POLL_S = 0.0015
"""The event loop's timers are up to 1 ms late, so the last stretch before an arrival is polled."""
IDLE_TURN_S = 0.0001
"""A turn of the event loop in which nothing happened takes less."""
GIVEN_UP = "no answer: given up"
NEVER_SENT = f"never sent: {MOST_IN_FLIGHT:,} were under way"
WALL_S = time.time() - time.perf_counter()
HEADERS = {"Content-Type": "application/json", "Accept-Encoding": "identity"}


@dataclass
class Work:
    """What the users of one process share."""

    load: Load
    traffic: Traffic
    source: Source = field(default_factory=Source)
    recorder: Recorder = field(default_factory=Recorder)

    begun_s: float | None = None
    """When its first user began, by `perf_counter`; rows count from then."""
    ended: int = 0
    """Users that have had their last answer."""

    def __post_init__(self) -> None:
        self._users = itertools.count()
        self._logged: list[Logged] = []
        if self.load.log:
            self._logged = read_log(Path(self.load.log), self.traffic.timeout_ms)[self.source.worker :: self.load.users]
        self.requests: Iterator[dict[str, Any]] = (
            (logged.request for logged in self._logged) if self.load.log else self.traffic.requests(self.source)
        )

    def due_s(self) -> Iterator[float]:
        """When the requests of the next open-loop user are due, by `perf_counter`."""
        seed = (self.traffic.seed, self.source.worker, self.source.load, next(self._users))
        rng = random.Random(f"{seed} arrivals")  # noqa: S311 - a load, not a secret
        begin_s = time.perf_counter()
        if self.load.log:
            return (begin_s + logged.at_s / self.load.speed for logged in self._logged)
        return (begin_s + due_s for due_s in self.load.due_s(rng))

    def wait_until(self, due_s: float) -> None:
        """Let others run until then."""
        while (left_s := due_s - time.perf_counter()) > 0:
            if left_s > POLL_S:
                gevent.sleep(left_s - POLL_S)
                continue
            gevent.sleep(0)
            turn_s = left_s - (due_s - time.perf_counter())
            if turn_s < IDLE_TURN_S:
                self.recorder.polled_s += turn_s


class RetrieveUser(FastHttpUser):
    """Asks as the load of its process says."""

    work: ClassVar[Work]
    concurrency = MOST_IN_FLIGHT

    def __init__(self, environment: Environment) -> None:
        self.network_timeout = self.connection_timeout = self.work.traffic.timeout_ms / 1e3 + SLACK_S
        super().__init__(environment)

    def on_start(self) -> None:
        """Begin; called by Locust."""
        self.work.begun_s = self.work.begun_s or time.perf_counter()
        self._in_flight = Pool(MOST_IN_FLIGHT)
        self._end_s = time.perf_counter() + self.work.load.seconds
        self._due_s = self.work.due_s() if self.work.load.rate else None
        self._next_s: float | None = None

    def on_stop(self) -> None:
        """Wait for the last answers, and own up to what was not even sent; called by Locust."""
        stopped_s = time.perf_counter()
        try:
            self._in_flight.join(self.network_timeout)
        finally:  # also where Locust's patience ends before
            self._in_flight.kill()
            self._record_unsent(stopped_s)
            self.work.ended += 1

    @task
    def retrieve(self) -> None:
        """The next request of this user."""
        if self._due_s is not None:
            self._next_s = next(self._due_s, None)
            if self._next_s is None:
                raise StopUser
            self.work.wait_until(self._next_s)
            self._in_flight.spawn(self._ask, self._next_s)
            self._next_s = None
        elif time.perf_counter() >= self._end_s:
            raise StopUser
        else:
            self._ask(time.perf_counter())

    def _ask(self, due_s: float) -> None:
        """Ask one query; anything but a well-formed 200 is a failure."""
        request = next(self.work.requests)
        late_s = time.perf_counter() - due_s
        try:
            outcome, latency_s, answer = self._post(request, due_s)
        except gevent.GreenletExit:
            waited_s = time.perf_counter() - due_s
            if self.work.load.rate or waited_s > self.network_timeout:  # else it is the test that ends, by Ctrl-C
                self._record(due_s, late_s, waited_s, GIVEN_UP)
            raise
        self._record(due_s, late_s, latency_s, outcome, answer)

    def _record(
        self, due_s: float, late_s: float, latency_s: float, outcome: str, answer: dict[str, Any] | None = None
    ) -> None:
        self.work.recorder.add(due_s - (self.work.begun_s or 0.0), late_s, latency_s, outcome, answer)

    def _post(self, request: dict[str, Any], due_s: float) -> tuple[str, float, dict[str, Any] | None]:
        with self.client.post("/retrieve", data=json.dumps(request), headers=HEADERS, catch_response=True) as response:
            latency_s = time.perf_counter() - due_s
            response.request_meta["response_time"] = latency_s * 1e3
            outcome, answer = judge(response.status_code, response.content, request["top_k"])
            if response.status_code == 0:  # no answer at all: Locust reports the error of the connection
                outcome = f"no answer: {type(getattr(response, 'error', None)).__name__}"
            elif answer is None:
                response.failure(outcome)
            else:
                self._log_stages(answer["timings_ms"])
        return outcome, latency_s, answer

    def _record_unsent(self, now_s: float) -> None:
        """Count arrivals that were due by now, but that could not be sent, since too many were under way.

        Left out, the rate would be less than what was offered, and nobody would see that.
        """
        for due_s in itertools.chain([self._next_s] if self._next_s else [], self._due_s or ()):
            if due_s > now_s:
                return
            self._record(due_s, now_s - due_s, now_s - due_s, NEVER_SENT)

    def _log_stages(self, timings_ms: dict[str, float]) -> None:
        # Logged to the entry itself: a request event would count each stage as a request in `Aggregated`.
        for stage, duration_ms in timings_ms.items():
            self.environment.stats.get(f"{stage} (µs)", "stage").log(round(duration_ms * 1e3), 0)
