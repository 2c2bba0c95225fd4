"""Real artifacts, made by the real commands, and a real server started from the serving environment."""

import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from artifacts.manifest import IndexManifest
from artifacts.store import load_manifest, save_manifest
from samples.generate import generate_ads

ROOT = Path(__file__).resolve().parent.parent.parent
CACHE = ROOT / "var" / "tests"
"""Artifacts of earlier runs; the commands themselves tell whether they are still current."""
DATA = ROOT.parent / "shared" / "data"
SERVING_PYTHON = ROOT / ".venv-serve" / "bin" / "python"


def hlm(*args: str | Path, check: bool = True) -> "subprocess.CompletedProcess[str]":
    """Run a command of ours to its end."""
    command = [sys.executable, "hlm.py", *map(str, args)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=check)


class Server:
    """A serving process and a client for it.

    `fault` is Python that the process runs first, to break something in itself. `extras` has it run in this
    environment, where optional packages are, rather than in the serving one.
    """

    stderr = ""
    """What it wrote there, once it is stopped."""

    def __init__(
        self, *args: str | Path, env: dict[str, str] | None = None, fault: str = "", extras: bool = False
    ) -> None:
        python = SERVING_PYTHON if SERVING_PYTHON.exists() and not extras else Path(sys.executable)
        program = ["-c", f"{fault}\nimport sys, hlm; sys.argv[0] = 'hlm'; hlm.main()"] if fault else ["hlm.py"]
        command = [str(python), *program, "serve", "--port", "0", *map(str, args)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | (env or {})
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if "http://" not in line:
            raise RuntimeError(f"the server did not start: {self.process.communicate()[1]}")
        self.url = "http://" + line.split("http://")[1].split(": ")[0]
        self.client = httpx.Client(base_url=self.url, timeout=30, limits=httpx.Limits(max_connections=200))

    def retrieve(self, query: str, **fields: object) -> httpx.Response:
        """Ask for ads with a budget that only a hang would miss."""
        return self.client.post("/retrieve", json={"query": query, "timeout_ms": 10_000, **fields})

    def metric(self, name: str) -> float:
        """The value of one series, written as in the exposition format."""
        for line in self.client.get("/metrics").text.splitlines():
            if line.startswith(f"{name} "):
                return float(line.split(" ")[1])
        raise KeyError(name)

    def stop(self, sig: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.client.close()
        self.process.send_signal(sig)
        _, self.stderr = self.process.communicate(timeout=60)
        return self.process.returncode


@pytest.fixture(scope="session")
def encoder() -> Path:
    """The int8 artifact of all-MiniLM-L6-v2."""
    out = CACHE / "encoders" / "minilm-int8"
    hlm("export", "demo", "--out", out, "--precision", "int8")
    return out


@pytest.fixture(scope="session")
def sample_feed() -> Path:
    out = CACHE / "feeds" / "samples.jsonl.gz"
    hlm("samples", "--out", out, "--ads", "3000")
    return out


@pytest.fixture(scope="session")
def sample_index(encoder: Path, sample_feed: Path) -> Path:
    out = CACHE / "indexes" / "samples"
    hlm("index", "build", "--feed", sample_feed, "--encoder", encoder, "--out", out)
    return _as_if_new(out)


@pytest.fixture(scope="session")
def graph_index(encoder: Path) -> Path:
    """An index of enough ads in one segment for a graph, the sample feed's without market and language."""
    feed, out = CACHE / "feeds" / "one-market.jsonl.gz", CACHE / "indexes" / "one-market"
    kept = ("ad_id", "title", "description")
    lines = [json.dumps({name: ad[name] for name in kept}) for ad in generate_ads(2_500, seed=1)]
    feed.parent.mkdir(parents=True, exist_ok=True)
    feed.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))
    hlm("index", "build", "--feed", feed, "--encoder", encoder, "--out", out)
    return _as_if_new(out)


def _as_if_new(index: Path) -> Path:
    """An index that has lain here for an hour would have its first change merged at once."""
    manifest = load_manifest(index, IndexManifest)
    save_manifest(index, manifest.model_copy(update={"created_at": datetime.now(UTC)}))
    return index


@pytest.fixture
def three_shoes(encoder: Path, tmp_path: Path) -> Path:
    """An index of three ads: a0, a1, a2."""
    feed = tmp_path / "three.jsonl"
    feed.write_text("".join(json.dumps({"ad_id": f"a{i}", "title": f"red shoe {i}"}) + "\n" for i in range(3)))
    hlm("index", "build", "--feed", feed, "--encoder", encoder, "--out", tmp_path / "three")
    return tmp_path / "three"


@pytest.fixture
def canary(encoder: Path, three_shoes: Path) -> dict[str, str]:
    """The environment of a server with a canary that has other ads, and answers only who asks for it."""
    settings = {"NAME": "canary", "ENCODER": str(encoder), "INDEX": str(three_shoes), "SHARE": "0"}
    return {f"HLM_CANARY__{name}": value for name, value in settings.items()}


@pytest.fixture
def start(encoder: Path, sample_index: Path) -> Iterator[Callable[..., Server]]:
    """Start servers with settings of a test's own; they end with the test."""
    started: list[Server] = []

    def start_one(*args: str | Path, fault: str = "", extras: bool = False, **env: str) -> Server:
        release = ("--name", "test", "--encoder", encoder, "--index", sample_index)
        server = Server(*release, *args, env=env, fault=fault, extras=extras)
        started.append(server)
        return server

    yield start_one
    for server in started:
        if server.process.poll() is None:
            server.process.kill()
            server.process.communicate()
        server.client.close()


@pytest.fixture(scope="session")
def server(encoder: Path, sample_index: Path) -> Iterator[Server]:
    """One server with default settings for all tests that leave it as it was."""
    server = Server("--name", "samples", "--encoder", encoder, "--index", sample_index)
    yield server
    assert server.stop(signal.SIGINT) == 0
