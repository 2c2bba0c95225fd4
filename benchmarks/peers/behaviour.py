"""What a server makes of trouble, as pass or fail; the last check ends it.

- poison: of 64 requests at once, one has a number for a query, or a body that is no JSON. The others are answered 200,
  and that one is not.
- disconnects: half of the clients at 1.25 times the throughput hang up 1 ms after they asked. Whoever stays is answered
  within 100 ms, 99 of 100 at least: what nobody waits for must not be worked off first.
- sigterm: the signal comes under half of the throughput. Every request that was sent before it is answered 200, and
  all processes end by themselves within 30 s.
"""

import os
import signal
import threading
import time

import numpy as np

from benchmarks.open_load import ABANDONED, OpenLoad
from benchmarks.open_loop import run_schedule
from benchmarks.peers.measure import CONNECTIONS, DEADLINE_MS, PATIENT_MS, Measurement, Questions
from benchmarks.peers.running import Running, is_alive, kill

BURST = 64
BURST_S = 0.002
HANGING_UP = 0.5
OFFERED = 1.25
STAYERS_SERVED = 0.99
SIGNAL_AFTER = 0.5
"""Of the seconds of the load."""
MARGIN_S = 0.01
"""The signal's time and the requests' are known to each other this well."""
END_S = 30.0


def behaviour(
    server: Running, measurement: Measurement, questions: Questions, throughput_qps: float
) -> dict[str, bool]:
    """All checks; the server is gone afterwards."""
    return {
        "poison": _survives_poison(server, questions),
        "disconnects": _drops_the_disconnected(measurement, throughput_qps),
        "sigterm": _ends_well(server, measurement, throughput_qps, questions.seconds),
    }


def _survives_poison(server: Running, questions: Questions) -> bool:
    good = [server.peer.request(query, questions.top_k, PATIENT_MS) for query in questions.queries[: BURST - 1]]
    number = server.peer.request(12, questions.top_k, PATIENT_MS)
    no_json = number.replace(b"{", b"[")
    return all(_only_it_fails(server.port, good, poison) for poison in (number, no_json))


def _only_it_fails(port: int, good: list[bytes], poison: bytes) -> bool:
    middle = len(good) // 2
    requests = [*good[:middle], poison, *good[middle:]]
    times, stays = np.linspace(0, BURST_S, len(requests)), np.zeros(len(requests), np.bool_)
    load = run_schedule(port, iter(requests), times, stays, seconds=BURST_S, connections=CONNECTIONS)
    return bool(load.status[middle] != 200 and np.sum(load.status == 200) == len(good))


def _drops_the_disconnected(measurement: Measurement, throughput_qps: float) -> bool:
    return serves_stayers(measurement.poisson(OFFERED * throughput_qps, disconnect_share=HANGING_UP))


def serves_stayers(load: OpenLoad) -> bool:
    """Whether those who did not hang up were answered in time."""
    stayed = load.status != ABANDONED
    good = (load.status == 200) & (load.latency_s <= DEADLINE_MS / 1e3)
    return bool(np.sum(good) >= STAYERS_SERVED * np.sum(stayed))


def _ends_well(server: Running, measurement: Measurement, throughput_qps: float, seconds: float) -> bool:
    pids = server.pids()
    signalled_s = [float("inf")]
    started_s = time.perf_counter()

    def send_signal() -> None:
        signalled_s[0] = time.perf_counter() - started_s
        os.kill(server.process.pid, signal.SIGTERM)

    timer = threading.Timer(SIGNAL_AFTER * seconds, send_signal)
    timer.start()
    load = measurement.poisson(throughput_qps / 2)
    timer.join()
    return lost_before(load, signalled_s[0] - MARGIN_S) == 0 and _all_end(pids)


def lost_before(load: OpenLoad, until_s: float) -> int:
    """Requests that were sent before then and not answered 200."""
    return int(np.sum((load.sent_s < until_s) & (load.status != 200)))


def _all_end(pids: list[int]) -> bool:
    """Whether they do by themselves; those that do not are killed."""
    deadline_s = time.monotonic() + END_S
    while time.monotonic() < deadline_s:
        if not any(map(is_alive, pids)):
            return True
        time.sleep(0.1)
    kill(pids)
    return False
