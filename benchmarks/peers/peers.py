"""The servers that are compared, each in its own environment, and what they are made of."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

from benchmarks.errors import BenchmarkError

READY_S = 120.0
ASK = b'{"query": "cordless drill 18v", "top_k": 100, "timeout_ms": 10000}'


@dataclass(frozen=True, slots=True)
class Peer:
    """A server and how it is started."""

    name: str
    settings: str
    environment: str
    command: tuple[str, ...]

    def python(self) -> str:
        """Of its environment.

        Raises:
            BenchmarkError: that is not there.
        """
        python = Path(self.environment) / "bin" / "python"
        if not python.exists():
            raise BenchmarkError(f"{self.name}: {python} is missing; `make peers` makes it")
        return str(python)


def peers(encoder: Path, index: Path, environments: Path) -> list[Peer]:
    """This project's service first."""
    serve = ("hlm.py", "serve", "--name", "bench", "--encoder", str(encoder), "--index", str(index), "--port", "{port}")
    mosec = (
        "-m",
        "benchmarks.peers.serve_mosec",
        "--address",
        "127.0.0.1",
        "--port",
        "{port}",
        "--timeout",
        "{timeout_ms}",
    )
    litserve = ("-m", "benchmarks.peers.serve_litserve")
    plain = ("-m", "benchmarks.peers.serve_plain")
    return [
        Peer("this service", "defaults, embedding cache off", sys.prefix, serve),
        Peer(
            "mosec",
            "1 worker, batch 32, wait 1 ms",
            str(environments / "mosec"),
            mosec,
        ),
        Peer(
            "LitServe",
            "1 worker, batch 32, wait 1 ms",
            str(environments / "litserve"),
            litserve,
        ),
        Peer("FastAPI + sentence-transformers", "fp32, no batches", sys.prefix, plain),
    ]


@dataclass(frozen=True, slots=True)
class Running:
    """A peer that answers."""

    port: int
    process: "subprocess.Popen[bytes]"
    ready_s: float

    def rss_mib(self) -> float:
        """Resident memory of all its processes; what they share is counted in each."""
        return sum(_status_kib(pid, "VmRSS") for pid in self._pids()) / 1024

    def cpu_s(self) -> float:
        """Processor time of all its processes so far."""
        ticks = 0
        for pid in self._pids():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def _pids(self) -> list[int]:
        """The process and those that it started: all of its session."""
        pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
        return [pid for pid in pids if _session(pid) == self.process.pid]


@contextmanager
def running(peer: Peer, port: int, core: int, variables: dict[str, str], timeout_ms: int) -> Iterator[Running]:
    """A peer on one core that has answered a request, until the block ends.

    Args:
        peer: which.
        port: to listen on.
        core: it may use.
        variables: of its environment.
        timeout_ms: after which it gives a request up, where it can be told that.

    Raises:
        BenchmarkError: it does not answer.
    """
    command = [
        "taskset",
        "-c",
        str(core),
        peer.python(),
        *(part.format(port=port, timeout_ms=timeout_ms) for part in peer.command),
    ]
    started_s = time.monotonic()
    environment = (
        os.environ | variables | {"PEER_PORT": str(port), "PEER_TIMEOUT_MS": str(timeout_ms), "PYTHONPATH": "."}
    )
    process = subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while not _answers(port):
            if process.poll() is not None or time.monotonic() - started_s > READY_S:
                raise BenchmarkError(f"{peer.name}: does not answer; try {' '.join(command)}")
            time.sleep(0.1)
        yield Running(port, process, time.monotonic() - started_s)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(port: int) -> bool:
    request = Request(f"http://127.0.0.1:{port}/retrieve", ASK, {"Content-Type": "application/json"})
    try:
        with urlopen(request, timeout=5) as answer:  # noqa: S310 - our own address
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def _status_kib(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
