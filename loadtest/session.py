"""Locust's master in this process, and the workers that generate the load in others, on this machine and further ones.

Generating in a process of its own keeps what this one does, progress and sums, from delaying requests.
"""

import logging
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gevent
from locust import runners
from locust.env import Environment
from locust.exception import RPCError

from loadtest.errors import LoadTestError
from loadtest.load import OBEYS, Load
from loadtest.samples import Samples
from loadtest.traffic import Traffic
from loadtest.users import SLACK_S, RetrieveUser
from terminal import waiting

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
LOOK_S = 0.25
READY_S = 60.0
SILENT_S = 30
"""How long a worker may say nothing. After Locust's own three seconds, which pass on a busy machine, it would count as
missing, and a load that begins in that moment would not be sent at all."""
ANY_ADDRESS = "*"

Child = subprocess.Popen[bytes]

Watch = Callable[[float, Samples], bool]
"""Is told the seconds since the start and what has come since the last call; says whether to go on."""


class Session:
    """Sends one load after the other to one service."""

    def __init__(self, master: runners.MasterRunner, traffic: Traffic, workers: int, children: Sequence[Child]) -> None:
        self._master = master
        self._traffic = traffic
        self._workers = workers
        self._children = children
        self._number = -1
        self._reports: list[dict[str, Any]] = []
        self._ended: dict[str, int] = {}
        self._obeying: set[str] = set()
        """Workers that take loads."""
        self.interrupted = False
        """By Ctrl-C or SIGTERM, which end a load before its time and keep what it saw."""
        master.register_message(OBEYS, lambda msg, **_: self._obeying.add(msg.node_id))
        master.environment.events.worker_report.add_listener(self._take)  # type: ignore[no-untyped-call]

    def run(self, load: Load, watch: Watch) -> tuple[float, Samples]:
        """Send a load and wait for its last answers; the wall clock's time of its start, and what it saw.

        Raises:
            LoadTestError: a worker is gone.
        """
        if load.rate:
            load = load.shared(self._workers)
        self._number += 1
        self._reports.clear()
        self._ended.clear()
        try:
            self._start(load)
            self._wait(load, watch)
        except KeyboardInterrupt:
            self.interrupted = True
        self._master.stop()
        self.wait_for_workers()
        begun_s = [report["begun_s"] for report in self._reports if report["begun_s"]]
        return min(begun_s, default=time.time()), Samples.of(self._reports)

    def _start(self, load: Load) -> None:
        message = {"number": self._number, "workers": self._workers, "load": asdict(load)}
        message["traffic"] = self._traffic.model_dump(mode="json")
        for worker, client_id in enumerate(sorted(self._there())):
            self._master.send_message("load", message | {"worker": worker}, client_id=client_id)
        self._master.start(load.users, spawn_rate=load.users)

    def _wait(self, load: Load, watch: Watch) -> None:
        started_s, seen, going_on = time.monotonic(), 0, True
        give_up_s = load.seconds + self._traffic.timeout_ms / 1e3 + 2 * SLACK_S
        while going_on and (passed_s := time.monotonic() - started_s) < give_up_s:
            gevent.sleep(LOOK_S)
            if self._has_lost_one():
                raise LoadTestError(f"{load.name}: expected {self._workers} workers, one of them is gone")
            fresh, seen = self._reports[seen:], len(self._reports)
            going_on = watch(passed_s, Samples.of(fresh)) and sum(self._ended.values()) < load.users

    def _has_lost_one(self) -> bool:
        clients = self._master.clients
        there = len(clients) - len(clients.missing)
        return there < self._workers or any(child.poll() is not None for child in self._children)

    def _take(self, client_id: str, data: dict[str, Any]) -> None:
        report = data.get("load")
        if report and report["number"] == self._number:
            self._reports.append(report | {"worker": client_id})
            self._ended[client_id] = report["ended"]

    def wait_for_workers(self) -> None:
        """Until all are there and idle.

        Raises:
            LoadTestError: they are not, after a minute.
        """
        with gevent.Timeout(READY_S, False):
            while self._ready() < self._workers:
                gevent.sleep(0.02)
            return
        found = self._ready()
        raise LoadTestError(f"expected {self._workers} load workers, found {found} after {READY_S:.0f} s")

    def _ready(self) -> int:
        return len(self._there())

    def _there(self) -> set[str]:
        return {client.id for client in self._master.clients.ready} & self._obeying


@contextmanager
def session(
    url: str, traffic: Traffic, *, workers: int = 1, remote_workers: int = 0, port: int = 0
) -> Iterator[Session]:
    """A session whose workers are ready.

    Args:
        url: of the service.
        traffic: what all loads ask for.
        workers: processes on this machine.
        remote_workers: further ones that are waited for; `locust -f loadtest/locustfile.py --worker` starts one.
        port: to which they connect, 0 for a free one; from elsewhere only where some are waited for.

    Raises:
        LoadTestError: they did not come, or none were asked for.
    """
    if not workers + remote_workers:
        raise LoadTestError("expected workers to send the load, on this machine or with --remote-workers; found none")
    if remote_workers and not port:
        raise LoadTestError("expected --port with --remote-workers, which have to be told to which one they connect")
    logging.getLogger("locust").setLevel(logging.ERROR)
    environment = Environment(user_classes=[RetrieveUser], host=url)
    address = ANY_ADDRESS if remote_workers else "127.0.0.1"
    port = port or _free_port()
    runners.HEARTBEAT_LIVENESS = round(SILENT_S / runners.HEARTBEAT_INTERVAL)
    try:
        master = environment.create_master_runner(address, port)
    except RPCError as error:
        raise LoadTestError(f"--port {port}: expected one that is free ({error})") from error
    children: list[Child] = []
    _end_as_by_ctrl_c()
    try:
        children.extend(_worker(port) for _ in range(workers))
        opened = Session(master, traffic, workers + remote_workers, children)
        _await_workers(opened, remote_workers, port)
        yield opened
    finally:
        master.quit()
        for child in children:
            _end(child)


def _end_as_by_ctrl_c() -> None:
    """Whatever ends the command ends its load, and keeps what it saw; workers of their own session would go on."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # as below nohup
            signal.signal(number, signal.default_int_handler)


def _await_workers(opened: Session, remote_workers: int, port: int) -> None:
    if not remote_workers:
        opened.wait_for_workers()
        return
    with waiting(f"Waiting for {remote_workers} load workers of other machines on port {port}"):
        opened.wait_for_workers()


def _worker(port: int) -> Child:
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--worker", "--master-host", "127.0.0.1"]
    command += ["--master-port", str(port), "--loglevel", "ERROR"]
    root = LOCUSTFILE.parent.parent
    # In a session of its own, as Ctrl-C is for the command: it ends the load, and asks the workers what they saw.
    return subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL, start_new_session=True)  # noqa: S603 - our own


def _end(child: Child) -> None:
    try:
        child.wait(timeout=5)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGKILL)
        child.wait()


def _free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port
