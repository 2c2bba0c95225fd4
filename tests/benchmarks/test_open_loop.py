import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, repeat

import numpy as np
import pytest

from benchmarks.http_load import request_bytes
from benchmarks.open_load import ABANDONED, FAILED, OpenLoad
from benchmarks.open_loop import arrival_times, run_open_loop
from tests.waiting import wait_until

REQUEST = request_bytes("cordless drill", 10, 50)
NAN = float("nan")


class StandIn:
    """A one-thread HTTP server with a fault: from its `stalls_at`-th request on, it does nothing for a while, once."""

    def __init__(self, stalls_at: int | None = None, stall_s: float = 0.0, answers: bool = True) -> None:
        self.served = 0
        self.clients_lost = 0
        self.bodies: list[bytes] = []
        self._stalls_at = stalls_at
        self._stall_s = stall_s
        self._answers = answers

    @contextmanager
    def running(self) -> Iterator[int]:
        """Serve on a thread of its own; yields the port."""
        self._ready = threading.Event()
        thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        thread.start()
        assert self._ready.wait(30)
        try:
            yield self._port
        finally:
            self._loop.call_soon_threadsafe(self._stop.set)
            thread.join()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._handlers: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._handle, "127.0.0.1", 0)
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for handler in self._handlers:
            handler.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
                body = await reader.readexactly(length)
                self.served += 1
                if self.served == self._stalls_at:
                    threading.Event().wait(self._stall_s)  # the whole server stands still, as in a long pause
                if self._answers:
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        except asyncio.IncompleteReadError:
            self.clients_lost += 1
        finally:
            self._handlers.discard(task)
            writer.close()


def load_of(**arrays: list[float]) -> OpenLoad:
    """A run of 1 s with four arrivals."""
    defaults = {"intended_s": [0.0, 0.2, 0.4, 0.6], "status": [200, 200, 503, 200]}
    values = {name: np.array(values) for name, values in (defaults | arrays).items()}
    return OpenLoad(seconds=1.0, bodies=[b"0", b"1", b"2", b"3"], busy_share=0.5, **values)


def test_arrivals_are_a_poisson_process_of_the_given_rate():
    times = arrival_times(rate=200, seconds=100, seed=7)
    gaps = np.diff(times)
    assert times[0] >= 0
    assert times[-1] < 100
    assert (gaps > 0).all()
    assert len(times) == pytest.approx(20_000, rel=0.03)  # four standard deviations
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)  # exponential gaps: the two are the same
    assert np.mean(gaps > 1 / 200) == pytest.approx(np.exp(-1), abs=0.015)


def test_the_same_seed_gives_the_same_arrivals_and_another_seed_others():
    assert (arrival_times(50, 10, seed=1) == arrival_times(50, 10, seed=1)).all()
    assert arrival_times(50, 10, seed=1)[0] != arrival_times(50, 10, seed=2)[0]


def test_a_latency_counts_from_the_intended_send_not_from_the_actual_one():
    load = load_of(sent_s=[0.0, 0.5, 0.5, 0.6], done_s=[0.01, 0.52, 0.51, 0.62])
    assert load.latency_s == pytest.approx([0.01, 0.32, 0.11, 0.02])
    assert load.lateness_ms(100) == pytest.approx(300)
    assert load.latency_ms(100) == pytest.approx(320)
    assert load.latency_ms(50) == pytest.approx(20), "refusals have no say in the latency of answers"


def test_goodput_counts_answers_in_time_while_requests_arrive():
    load = load_of(sent_s=[0.0, 0.2, 0.4, 0.6], done_s=[0.01, 0.32, 0.41, 1.001])
    assert load.offered_qps == 4
    assert load.achieved_qps == 3, "the last came after the end"
    assert load.goodput_qps(0.2) == 2
    assert load.goodput_qps(0.1) == 1
    assert load.late_share(0.1) == pytest.approx(2 / 3)
    assert load.share(503) == 0.25


def test_what_was_never_answered_is_neither_good_nor_late():
    load = load_of(sent_s=[0.0, 0.2, NAN, 0.6], done_s=[0.01, NAN, NAN, NAN], status=[200, FAILED, FAILED, ABANDONED])
    assert load.achieved_qps == 1
    assert load.goodput_qps(1.0) == 1
    assert load.late_share(1.0) == 0
    assert load.lateness_ms(100) == 0
    assert np.isnan(load_of(sent_s=[NAN] * 4, done_s=[NAN] * 4, status=[FAILED] * 4).latency_ms(99))


def test_a_part_of_a_run_is_a_run_of_its_own():
    load = load_of(sent_s=[0.0, 0.2, 0.4, 0.6], done_s=[0.01, 0.32, 0.41, 0.62]).between(0.2, 0.6)
    assert load.intended_s == pytest.approx([0.0, 0.2])
    assert load.latency_s == pytest.approx([0.12, 0.01])
    assert load.bodies == [b"1", b"2"]
    assert load.offered_qps == pytest.approx(5)


def test_every_arrival_is_answered_and_has_its_own_body():
    requests = (request_bytes(str(number), 10, 50) for number in count())
    with StandIn().running() as port:
        load = run_open_loop(port, requests, rate=400, seconds=0.5, seed=3, connections=16, keep_bodies=True)
    assert load.share(200) == 1
    assert [body.split(b'"')[3] for body in load.bodies] == [b"%d" % number for number in range(len(load.status))]
    assert (load.sent_s >= load.intended_s).all()
    assert (load.done_s > load.sent_s).all()


def test_the_open_loop_sees_a_stall_that_a_closed_loop_waits_out():
    """0.3 s of standing still in 1 s of 200 arrivals a second: about 60 of 200 meet it, and 30 wait 0.15 s and more.

    In a closed loop, one request a client would.
    """
    with StandIn(stalls_at=50, stall_s=0.3).running() as port:
        seen = run_open_loop(port, repeat(REQUEST), rate=200, seconds=1, seed=3, connections=4)
    assert seen.share(200) == 1
    assert np.sum(seen.latency_s > 0.15) >= 20
    assert np.sum(seen.sent_s - seen.intended_s > 0.15) >= 16, "four connections: the others wait, and it counts"


def test_a_client_that_disconnects_is_told_apart_and_the_server_notices():
    server = StandIn(answers=False)
    with server.running() as port:
        load = run_open_loop(
            port, repeat(REQUEST), rate=200, seconds=0.2, seed=3, connections=100, disconnect_share=1.0
        )
        wait_until(lambda: server.clients_lost == len(load.status))
    assert len(load.status) > 20
    assert (load.status == ABANDONED).all()
    assert np.isnan(load.done_s).all()


@pytest.mark.parametrize("awake", [True, False], ids=["polling", "sleeping"])
def test_polling_and_sleeping_send_the_same_requests(awake: bool):
    with StandIn().running() as port:
        load = run_open_loop(port, repeat(REQUEST), rate=200, seconds=0.2, seed=3, connections=8, awake=awake)
    assert (load.intended_s == arrival_times(200, 0.2, seed=3)).all()
    assert load.share(200) == 1


def test_no_server_is_a_failure_of_each_request():
    with StandIn().running() as port:
        pass
    load = run_open_loop(port, repeat(REQUEST), rate=100, seconds=0.1, seed=3, connections=4)
    assert len(load.status) > 0
    assert (load.status == FAILED).all()
    assert np.isnan(load.sent_s).all()
