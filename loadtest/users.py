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

from loadtest.load import Load
from loadtest.recorder import OK, Recorder
from loadtest.replay import Logged, read_log
from loadtest.traffic import Traffic

SLACK_S = 5.0
"""How long after `timeout_ms` a user gives up waiting for the service's own refusal."""
MOST_IN_FLIGHT = 4_096
"""Of one open-loop user; arrivals beyond wait, and their latency goes on counting."""
POLL_S = 0.0015
"""The event loop's timers are up to 1 ms late, so the last stretch before an arrival is polled."""
IDLE_TURN_S = 0.0001
"""A turn of the event loop in which nothing happened takes less."""
WALL_S = time.time() - time.perf_counter()
HEADERS = {"Content-Type": "application/json", "Accept-Encoding": "identity"}


@dataclass
class Work:
    """What the users of one process share."""

    load: Load
    traffic: Traffic
    worker: int = 0
    """Number of this process among those that generate the load."""
    recorder: Recorder = field(default_factory=Recorder)

    ended: int = 0
    """Users that have had their last answer."""

    def __post_init__(self) -> None:
        self._users = itertools.count()
        self._logged: list[Logged] = []
        if self.load.log:
            self._logged = read_log(Path(self.load.log), self.traffic.timeout_ms)[self.worker :: self.load.users]
        self.requests: Iterator[dict[str, Any]] = (
            (logged.request for logged in self._logged) if self.load.log else self.traffic.requests(self.worker)
        )

    def due_s(self) -> Iterator[float]:
        """When the requests of the next open-loop user are due, by `perf_counter`."""
        rng = random.Random(f"{self.traffic.seed} {self.worker} {next(self._users)} arrivals")  # noqa: S311
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
        self.network_timeout = self.work.traffic.timeout_ms / 1e3 + SLACK_S
        super().__init__(environment)

    def on_start(self) -> None:
        """Begin; called by Locust."""
        self._in_flight = Pool(MOST_IN_FLIGHT)
        self._end_s = time.perf_counter() + self.work.load.seconds
        self._due_s = self.work.due_s() if self.work.load.rate else None

    def on_stop(self) -> None:
        """Wait for the last answers; called by Locust."""
        self._in_flight.join(self.network_timeout)
        self.work.ended += 1

    @task
    def retrieve(self) -> None:
        """The next request of this user."""
        if self._due_s is not None:
            due_s = next(self._due_s, None)
            if due_s is None:
                raise StopUser
            self.work.wait_until(due_s)
            self._in_flight.spawn(self._ask, due_s)
        elif time.perf_counter() >= self._end_s:
            raise StopUser
        else:
            self._ask(time.perf_counter())

    def _ask(self, due_s: float) -> None:
        """Ask one query; anything but a well-formed 200 is a failure."""
        request = next(self.work.requests)
        late_s = time.perf_counter() - due_s
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
        self.work.recorder.add(due_s + WALL_S, late_s, latency_s, outcome, answer)

    def _log_stages(self, timings_ms: dict[str, float]) -> None:
        # Logged to the entry itself: a request event would count each stage as a request in `Aggregated`.
        for stage, duration_ms in timings_ms.items():
            self.environment.stats.get(f"{stage} (µs)", "stage").log(round(duration_ms * 1e3), 0)


def judge(status: int, body: bytes | None, top_k: int) -> tuple[str, dict[str, Any] | None]:
    """What an answer is, in words few enough to count by, and the answer where it is a well-formed 200."""
    try:
        answer = json.loads(body or b"")
        if status != 200:
            return f"{status} {answer['type']}", None
        check_answer(answer, top_k)
    except (json.JSONDecodeError, UnicodeDecodeError):  # whose messages differ from answer to answer
        return f"{status}, but not JSON", None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{status}, but malformed: {type(error).__name__}: {error}", None
    return OK, answer


def check_answer(answer: dict[str, Any], top_k: int) -> None:
    """Raise unless the ads are at most `top_k`, each once, in falling score.

    Raises:
        ValueError: they are not.
        KeyError, TypeError: this is no answer to `POST /retrieve`.
    """
    ads = answer["ads"]
    scores = [ad["score"] for ad in ads]
    if len(ads) > top_k:
        raise ValueError("more ads than asked for")
    if len({ad["ad_id"] for ad in ads}) < len(ads):
        raise ValueError("an ad comes twice")
    if any(score < following for score, following in itertools.pairwise(scores)):
        raise ValueError("scores do not fall")
    if not isinstance(answer["timings_ms"], dict) or not isinstance(answer["coverage"], dict):
        raise ValueError("timings_ms or coverage is no object")  # noqa: TRY004 - one kind for all
