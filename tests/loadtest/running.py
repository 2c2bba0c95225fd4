"""The command `hlm loadtest` as a person runs it, and a server that stalls."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loadtest.result import Result, read_result
from tests.client.standin import Reply, Respond, answer

ROOT = Path(__file__).resolve().parents[2]


def loadtest(
    *arguments: str, code: int | tuple[int, ...] = 0, timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "hlm.py", "loadtest", *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert result.returncode in (code if isinstance(code, tuple) else (code,)), result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    return result


@contextmanager
def started(*arguments: str) -> "Iterator[subprocess.Popen[str]]":
    """The command while it runs; it is over when the block ends."""
    command = [sys.executable, "-W", "error", "hlm.py", "loadtest", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            if running.poll() is None:
                running.kill()


@contextmanager
def workers_by_hand(port: str) -> "Iterator[list[subprocess.Popen[bytes]]]":
    """Two workers of Locust's own that connect to a port; none is left when the block ends."""
    command = [sys.executable, "-m", "locust", "-f", "loadtest/locustfile.py", "--worker", "--loglevel", "ERROR"]
    workers = [subprocess.Popen([*command, "--master-port", port], cwd=ROOT) for _ in range(2)]
    try:
        yield workers
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def run(url: str, out: Path, *options: str, code: int = 0) -> Result:
    loadtest("run", "--url", url, "--out", str(out), *options, code=code)
    return read_result(out)


def stalling(at_s: float, for_s: float) -> Respond:
    """Answers at once, but for one stretch of time after the first request of a load in which it answers nobody."""
    lock = threading.Lock()
    begun_s, count = 0.0, 0

    def respond(request: dict[str, Any]) -> Reply:
        nonlocal begun_s, count
        with lock:
            count += bool(request)
            if not request or count == 1:  # what looks who is there
                return answer(["a", "b"])
            begun_s = begun_s or time.monotonic()
        passed_s = time.monotonic() - begun_s
        if at_s <= passed_s < at_s + for_s:
            time.sleep(at_s + for_s - passed_s)
        return answer(["a", "b"])

    return respond
