"""A server whose release is changed in every way there is, and what it says of it."""

import http.client
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import yaml

from artifacts.store import write_atomic
from benchmarks.errors import BenchmarkError
from benchmarks.replica import Replica, free_port
from benchmarks.servers import CACHE_OFF, Server
from benchmarks.swap_answers import KnownRelease
from benchmarks.swap_plan import WAYS, Step

REJECTED = 'hlm_release_swaps_total{result="rejected"}'
PATIENCE_S = 120.0
POLL_S = 0.1


class SwapServer:
    """`hlm serve --config` with an admin listener."""

    def __init__(self, directory: Path, cores: Collection[int], *, keep_previous_ms: int, grace_ms: int) -> None:
        """Prepare; nothing runs yet.

        Args:
            directory: where the configuration file goes, into a directory of its own.
            cores: of the server.
            keep_previous_ms: swap.keep_previous_ms.
            grace_ms: server.drain_grace_ms.
        """
        self.config = directory / "config" / "serve.yaml"
        self.config.parent.mkdir()
        self._admin_port = free_port()
        self._token = secrets.token_hex(32)
        self._settings = {"swap": {"keep_previous_ms": keep_previous_ms}, "server": {"drain_grace_ms": grace_ms}}
        environment = {"HLM_ADMIN_TOKEN": self._token, "HLM_SERVER__ADMIN_PORT": str(self._admin_port)}
        self.replica = Replica(["--config", str(self.config)], environment | dict(CACHE_OFF), cores)

    @property
    def port(self) -> int:
        """Of the public listener."""
        return self.replica.port

    def start(self, release: KnownRelease) -> None:
        """Start with this release, and return when it is served."""
        self.write(self.config_of(release))
        self.replica.start()
        self.replica.wait_until_ready()

    def config_of(self, release: KnownRelease) -> str:
        """The configuration file that asks for a release."""
        paths = {"encoder": str(release.encoder.resolve()), "index": str(release.index.resolve())}
        return yaml.safe_dump(self._settings | {"release": {"name": release.name, **paths}})

    def write(self, config: str) -> None:
        """Replace the configuration file by a rename."""
        write_atomic(self.config, config.encode())

    def swap(self, step: Step) -> None:
        """Ask for a release, and return when it is served.

        Raises:
            BenchmarkError: it is not.
        """
        if step.way == WAYS[0]:
            self.write(self.config_of(step.release))
        elif step.way == WAYS[1]:
            self.config.write_text(self.config_of(step.release))
        elif step.way == WAYS[2]:
            paths = ("--encoder", str(step.release.encoder.resolve()), "--index", str(step.release.index.resolve()))
            self._hlm_release("use", step.release.name, *paths)
        else:
            self._hlm_release("rollback")
        self._wait(lambda: self.info()["release"]["name"] == step.release.name, f"{step.release.name} by {step.way}")

    def wait_until_alone(self) -> None:
        """Return when the release before is dropped.

        Raises:
            BenchmarkError: it is not.
        """
        self._wait(lambda: self._status()["previous"] is None, "the drop of the previous release")

    def refuses(self, config: str, name: str | None) -> tuple[bool, str]:
        """Whether a configuration is refused and said to be, and the reason that is given.

        Args:
            config: the file's new content.
            name: of the release in it, None where it cannot be read.
        """
        served, before = self.info()["release"], self.rejected
        self.write(config)
        self._wait(lambda: self.rejected > before or self.info()["release"] != served, f"a verdict on {name}")
        info = self.info()
        swap = info["last_swap"] or {}
        refused = info["release"] == served and (swap.get("result"), swap.get("release")) == ("rejected", name)
        return refused, swap.get("reason") or ""

    @property
    def rejected(self) -> float:
        """How many releases were rejected, as its metrics say."""
        return self._server.metrics().get(REJECTED, 0.0)

    @property
    def rss_bytes(self) -> int:
        """Resident memory."""
        return self._server.rss_bytes()

    def info(self) -> dict[str, Any]:
        """`GET /info`."""
        found: dict[str, Any] = json.loads(self.replica.get("/info")[1])
        return found

    @property
    def _server(self) -> Server:
        return Server(self.port, self.replica.pid)

    def _status(self) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self._admin_port, timeout=30)
        connection.request("GET", "/releases", headers={"Authorization": f"Bearer {self._token}"})
        found: dict[str, Any] = json.loads(connection.getresponse().read())
        connection.close()
        return found

    def _hlm_release(self, *words: str) -> None:
        # At the least priority, so that the start of an interpreter delays no request on the clients' core.
        command = ["nice", "-n", "19", sys.executable, "hlm.py", "release", *words]
        command += ["--admin-url", f"http://127.0.0.1:{self._admin_port}"]
        environment = os.environ | {"HLM_ADMIN_TOKEN": self._token}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchmarkError(f"hlm release {' '.join(words)}: {done.stderr.strip()}")

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        gives_up = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > gives_up:
                raise BenchmarkError(f"waited {PATIENCE_S:g} s for {what}; the server says {self.info()['last_swap']}")
            time.sleep(POLL_S)
