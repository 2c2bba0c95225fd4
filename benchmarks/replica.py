"""A real server process: started on chosen cores, asked, ended by a signal."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from benchmarks.errors import BenchmarkError

START_PATIENCE_S = 120.0
STOP_PATIENCE_S = 60.0
POLL_S = 0.02


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Replica:
    """One `hlm serve` on a port that stays its own when it is restarted."""

    def __init__(
        self, options: Sequence[str], environment: Mapping[str, str], cores: Collection[int], port: int | None = None
    ) -> None:
        """Take what `hlm serve` is started with; nothing runs yet.

        Args:
            options: of `hlm serve`, without the port.
            environment: variables beside those of this process.
            cores: that it may use.
            port: of the public listener; by default a free one.
        """
        self.port = port or free_port()
        affinity = ",".join(map(str, sorted(cores)))
        self._command = ["taskset", "-c", affinity, sys.executable, "hlm.py", "serve", "--port", str(self.port)]
        self._command += options
        self._environment = os.environ | {"HLM_SERVER__LOG_LEVEL": "warning"} | dict(environment)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    @property
    def core_s(self) -> float:
        """Seconds of a core that its threads have taken so far, less those that wait for an idle one (`SCHED_IDLE`)."""
        taken_ns = 0
        for thread in Path(f"/proc/{self.pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
                if os.sched_getscheduler(int(thread.name)) != os.SCHED_IDLE:
                    taken_ns += int((thread / "schedstat").read_text().split()[0])
        return taken_ns / 1e9

    def start(self) -> None:
        """Start the process and return at once; it answers after `wait_until_ready`."""
        self._process = subprocess.Popen(self._command, env=self._environment, stdout=subprocess.DEVNULL)

    def wait_until_ready(self) -> None:
        """Return when it says that it is ready.

        Raises:
            BenchmarkError: it ended, or took too long.
        """
        assert self._process is not None
        gives_up = time.monotonic() + START_PATIENCE_S
        while not self.ready():
            if self._process.poll() is not None:
                raise BenchmarkError(f"the server ended with exit code {self._process.returncode}; its error is above")
            if time.monotonic() > gives_up:
                raise BenchmarkError(f"the server was not ready within {START_PATIENCE_S:g} s")
            time.sleep(POLL_S)

    def ready(self) -> bool:
        """Whether `/health/ready` says yes; no is also what does not answer."""
        try:
            return self.get("/health/ready")[0] == 200
        except OSError:
            return False

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of a GET.

        Raises:
            OSError: there was no answer.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path, headers={"Connection": "close"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except http.client.HTTPException as error:
            raise OSError(str(error)) from error
        finally:
            connection.close()

    def begin_to_stop(self) -> None:
        """Send SIGTERM and return at once."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    def wait_until_gone(self) -> int:
        """The exit code.

        Raises:
            BenchmarkError: it took too long.
        """
        assert self._process is not None
        try:
            return self._process.wait(STOP_PATIENCE_S)
        except subprocess.TimeoutExpired as error:
            raise BenchmarkError(f"the server had not ended {STOP_PATIENCE_S:g} s after SIGTERM") from error

    def kill(self) -> None:
        """End it at once, if it still runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
