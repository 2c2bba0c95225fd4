"""A server that is compared, as processes on the cores that it was given."""

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

from benchmarks.errors import BenchmarkError
from benchmarks.peers.peers import Peer
from benchmarks.servers import CACHE_OFF

READY_S = 180.0
ASKED = ("cordless drill 18v", 100, 10_000)
SILENT: Mapping[str, str] = {
    "TOKENIZERS_PARALLELISM": "false",
    "BENTOML_DO_NOT_TRACK": "true",
    "BENTOML_HOME": "var/peers/bentoml/home",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "INFINITY_ANONYMOUS_USAGE_STATS": "0",
}
"""Nobody calls home; tokenizers start no threads of their own; Ray Serve is as its page on performance has it, and its
services listen on the loopback interface, as they do where Ray knows no clusters."""


@dataclass(frozen=True, slots=True)
class Seat:
    """Who runs where."""

    name: str
    server_cores: frozenset[int]
    generator_cores: frozenset[int]

    @property
    def shared(self) -> bool:
        """Whether the generator may run where the server does; then it sleeps while it has nothing to do."""
        return bool(self.server_cores & self.generator_cores)


@dataclass(frozen=True, slots=True)
class Limits:
    """When a server is to give requests up, where it can be told to."""

    timeout_ms: int
    places: int
    """Most requests in the house."""


@dataclass(frozen=True, slots=True)
class Running:
    """A peer that answers."""

    peer: Peer
    port: int
    process: "subprocess.Popen[bytes]"
    ready_s: float

    def rss_mib(self) -> float:
        """Resident memory of all its processes; what they share is counted in each."""
        return sum(_status_kib(pid, "VmRSS") for pid in self.pids()) / 1024

    def cpu_s(self) -> float:
        """Processor time of all its processes so far."""
        ticks = 0
        for pid in self.pids():
            fields = _stat(pid)
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def pids(self) -> list[int]:
        """Those in the session that it was started in, even if it is gone, those that these started, and so on."""
        session: list[tuple[int, int]] = []
        others: list[tuple[int, int]] = []
        for pid, parent, session_of in _processes():
            (session if session_of == self.process.pid else others).append((pid, parent))
        found = [pid for pid, _ in session]
        for started_by in found:
            found += [pid for pid, parent in others if parent == started_by]
        return found

    def end(self) -> None:
        """Kill all of it, and what it may still be starting; returns when nothing is left."""
        while alive := [pid for pid in self.pids() if is_alive(pid)]:
            kill(alive)
            time.sleep(0.01)
        self.process.wait()


def kill(pids: Iterable[int]) -> None:
    """End those that are still there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that ended and that nobody has asked about does not."""
    try:
        return _stat(pid)[0] not in "ZX"
    except OSError:
        return False


def _processes() -> Iterator[tuple[int, int, int]]:
    """Every process of the machine: its number, its parent's, and its session's."""
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            pid = int(entry.name)
            _, parent, _, session, *_ = _stat(pid)
            yield pid, int(parent), int(session)


def _stat(pid: int) -> list[str]:
    """State, parent, group, session and so on: `proc_pid_stat(5)` from its third field on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


@contextmanager
def running(peer: Peer, port: int, seat: Seat, variables: Mapping[str, str], limits: Limits) -> Iterator[Running]:
    """A peer that has answered a request, until the block ends.

    Args:
        peer: which.
        port: to listen on.
        seat: where.
        variables: of its environment.
        limits: its own.

    Raises:
        BenchmarkError: it does not answer.
    """
    places = {"port": port, "timeout_ms": limits.timeout_ms, "places": limits.places}
    cores = ",".join(map(str, sorted(seat.server_cores)))
    command = ["taskset", "-c", cores, peer.python(), *(part.format(**places) for part in peer.command)]
    own = {f"PEER_{name.upper()}": str(value) for name, value in places.items()}
    own |= {"PEER_WORKERS": str(len(seat.server_cores)), "PYTHONPATH": ".", **({} if peer.cached else CACHE_OFF)}
    started_s = time.monotonic()
    process = subprocess.Popen(
        command,
        env={**os.environ, **SILENT, **variables, **own},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while not _answers(peer, port):
            if process.poll() is not None or time.monotonic() - started_s > READY_S:
                raise BenchmarkError(f"{peer.name}: does not answer; try {' '.join(command)}")
            time.sleep(0.1)
        yield Running(peer, port, process, time.monotonic() - started_s)
    finally:
        Running(peer, port, process, 0).end()


def _answers(peer: Peer, port: int) -> bool:
    body = peer.request(*ASKED).partition(b"\r\n\r\n")[2]
    request = Request(f"http://127.0.0.1:{port}/retrieve", body, {"Content-Type": "application/json"})
    try:
        with urlopen(request, timeout=5) as answer:  # noqa: S310 - our own address
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def _status_kib(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
