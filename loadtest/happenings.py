"""Does what a scenario plans to do to the service, each thing at its time, in greenlets beside the load."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from urllib.parse import quote, urlsplit

import gevent
import httpx

from loadtest.measure import Measurement
from loadtest.result import Event
from loadtest.scenario import AdUpdates, Disconnects, Kill, Planned, Run, SlowClients, Swap

TOKEN_VARIABLE = "HLM_ADMIN_TOKEN"  # noqa: S105 - its name, not its value
DISCONNECT_AFTER_S = 0.001
BYTE_EVERY_S = 0.5
SWAP_TIMEOUT_S = 600.0
Outcome = tuple[str, bool]
"""In a few words, and whether it came about as planned."""
QUERY = b'{"query": "cordless drill 18v"}'


def plan(events: list[Planned], url: str, measurement: Measurement) -> "list[gevent.Greenlet]":
    """Start the clock of every event; each adds itself to the measurement when it is over.

    Returns:
        A greenlet an event, for `gevent.joinall`.
    """
    return [gevent.spawn(_happen, planned, url, measurement) for planned in events]


def _happen(planned: Planned, url: str, measurement: Measurement) -> None:
    gevent.sleep(max(0.0, measurement.started_s + planned.at_s - time.time()))
    at_s = time.time() - measurement.started_s
    try:
        outcome, done = _do(planned.do, url)
    except Exception as error:  # an event must not vanish, whatever became of it
        outcome, done = f"failed: {type(error).__name__}: {error}", False
    measurement.events.append(Event(at_s=round(at_s, 3), name=planned.name, outcome=outcome, done=done))


def _do(what: Swap | AdUpdates | Kill | Run | SlowClients | Disconnects, url: str) -> Outcome:
    match what:
        case Swap():
            return _swap(what)
        case AdUpdates():
            return _update_ads(what, url)
        case Kill():
            return _kill(what)
        case Run():
            return _run(what)
        case SlowClients():
            return _be_slow(what, url)
        case Disconnects():
            return _disconnect(what, url)


def _run(run: Run) -> Outcome:
    code = subprocess.run(run.command, check=False, stdin=subprocess.DEVNULL).returncode  # noqa: S603 - what it is for
    return f"exit code {code}", code == 0


def _swap(swap: Swap) -> Outcome:
    release = swap.model_dump(include={"name", "encoder", "index", "record"}, exclude_none=True)
    with _admin(swap.admin_url) as admin:
        answer = admin.post("/releases/use", json=release, timeout=SWAP_TIMEOUT_S)
    if answer.status_code == 200:
        return "served", True
    return f"refused with {answer.status_code}: {answer.text[:200]}", False


def _update_ads(updates: AdUpdates, url: str) -> Outcome:
    headers = {"Content-Type": "application/json"}
    found = httpx.post(f"{url.rstrip('/')}/retrieve", content=QUERY, headers=headers, trust_env=False)
    ad_ids = [ad["ad_id"] for ad in found.json().get("ads", [])]
    if not ad_ids:
        return "failed: no ad was found whose bid could be changed", False
    done = 0
    with _admin(updates.admin_url) as admin:
        for number in _paced(updates.rate, updates.seconds):
            ad_id = quote(ad_ids[number % len(ad_ids)], safe="")
            answer = admin.patch(f"/ads/{ad_id}", content=json.dumps({"bid": 0.1 + number % 10 / 10}))
            done += answer.status_code == 200
    return f"{done} of {number + 1} bids changed", done == number + 1


def _kill(kill: Kill) -> Outcome:
    pid = int(kill.pid_file.read_text()) if kill.pid_file else kill.pid
    assert pid
    os.kill(pid, getattr(signal, f"SIG{kill.signal}"))
    return f"sent SIG{kill.signal} to process {pid}", True


def _be_slow(slow: SlowClients, url: str) -> Outcome:
    end_s = time.monotonic() + slow.seconds
    held = gevent.joinall([gevent.spawn(_drip, url, end_s) for _ in range(slow.clients)])
    closed = sum(not greenlet.value for greenlet in held)
    return f"{closed} of {slow.clients} were cut off by the service", True


def _drip(url: str, end_s: float) -> bool:
    """Whether the connection still stood in the end."""
    try:
        with _connection(url) as connection:
            for byte in _request(url):
                connection.sendall(bytes([byte]))
                gevent.sleep(BYTE_EVERY_S)
                if time.monotonic() >= end_s:
                    return True
    except OSError:
        return False
    return True


def _disconnect(disconnects: Disconnects, url: str) -> Outcome:
    greenlets = [gevent.spawn(_ask_and_go, url) for _ in _paced(disconnects.rate, disconnects.seconds)]
    gevent.joinall(greenlets)
    return f"{sum(bool(greenlet.value) for greenlet in greenlets)} clients asked and went away", True


def _ask_and_go(url: str) -> bool:
    try:
        with _connection(url) as connection:
            connection.sendall(_request(url))
            gevent.sleep(DISCONNECT_AFTER_S)
    except OSError:
        return False
    return True


def _paced(rate: float, seconds: float) -> Iterator[int]:
    """0, 1, 2, … evenly spaced, for some time."""
    started_s = time.monotonic()
    for number in range(max(1, int(rate * seconds))):
        gevent.sleep(max(0.0, started_s + number / rate - time.monotonic()))
        yield number


def _connection(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 80), timeout=10)


def _request(url: str) -> bytes:
    head = f"POST /retrieve HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(QUERY)}\r\n\r\n".encode() + QUERY


def _admin(url: str) -> httpx.Client:
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if not token:
        raise ValueError(f"{TOKEN_VARIABLE} is not set; expected the token that the service was started with")
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    return httpx.Client(base_url=url, headers=headers, timeout=30, trust_env=False)
