"""The servers that are compared, each in its own environment, and how they are started."""

import sys
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

from benchmarks.errors import BenchmarkError
from benchmarks.http_load import post_bytes

OURS = "this service"
SHORT = "this service, 3 layers, cache"
BATCHES = "batches of up to 32"


@dataclass(frozen=True, slots=True)
class Peer:
    """A server and how it is started."""

    name: str
    distribution: str
    """Whose version is its version."""
    settings: str
    environment: str
    command: tuple[str, ...]
    """What its Python is given; `{port}`, `{timeout_ms}` and `{places}` stand for those."""
    takes_lists: bool = False
    """Whether a request's queries are a list."""
    cached: bool = False
    """Whether it keeps embeddings of earlier queries."""

    def python(self) -> str:
        """Of its environment.

        Raises:
            BenchmarkError: that is not there.
        """
        python = Path(self.environment) / "bin" / "python"
        if not python.exists():
            raise BenchmarkError(f"{self.name}: {python} is missing; `make peers` makes it")
        return str(python)

    def version(self) -> str:
        """Of what is installed in its environment."""
        packages = [str(path) for path in Path(self.environment).glob("lib/python*/site-packages")]
        [found, *_] = distributions(name=self.distribution, path=packages)
        return f"{self.distribution} {found.version}"

    def request(self, query: object, top_k: int, timeout_ms: int) -> bytes:
        """A whole HTTP request; a query that is no text is what no server should take."""
        asked = {"queries": [query]} if self.takes_lists else {"query": query}
        return post_bytes({**asked, "top_k": top_k, "timeout_ms": timeout_ms})


def peers(encoder: Path, index: Path, environments: Path) -> list[Peer]:
    """The others, and this project's service last: it is also asked at half of what the best of them can do."""

    def script(name: str) -> tuple[str, str]:
        return "-m", f"benchmarks.peers.serve_{name}"

    mosec = ("--address", "127.0.0.1", "--port", "{port}", "--timeout", "{timeout_ms}", "--capacity", "{places}")
    bentoml = ("-m", "bentoml", "serve", "benchmarks.peers.serve_bentoml:Retrieve", "--host", "127.0.0.1")
    return [
        Peer(
            "mosec",
            "mosec",
            f"one worker process a core, {BATCHES}, waits 1 ms; overloaded: its timeout and capacity",
            str(environments / "mosec"),
            (*script("mosec"), *mosec),
        ),
        Peer(
            "LitServe",
            "litserve",
            f"one worker process a core, {BATCHES}, waits 1 ms; overloaded: its timeout",
            str(environments / "litserve"),
            script("litserve"),
        ),
        Peer(
            "BentoML",
            "bentoml",
            f"one worker process a core, {BATCHES}, adaptive; overloaded: its max_latency_ms, timeout, max_concurrency",
            str(environments / "bentoml"),
            (*bentoml, "--port", "{port}"),
            takes_lists=True,
        ),
        Peer(
            "Ray Serve",
            "ray",
            f"one replica a core, {BATCHES}, waits 1 ms, throughput mode; overloaded: its timeout, queue limit",
            str(environments / "ray"),
            script("ray"),
        ),
        Peer(
            "Infinity + hnswlib",
            "infinity-emb",
            f"engine optimum, one thread a core, {BATCHES}; FastAPI and hnswlib before it; overloaded: a timeout there",
            str(environments / "infinity"),
            script("infinity"),
        ),
        Peer("FastAPI + ST", "sentence-transformers", "fp32, no batches, 40 threads", sys.prefix, script("plain")),
        service(OURS, "defaults, embedding cache off", encoder, index),
    ]


def service(name: str, settings: str, encoder: Path, index: Path, *, cached: bool = False) -> Peer:
    """This project's, under a name."""
    command = ("hlm.py", "serve", "--name", "bench", "--encoder", str(encoder), "--index", str(index))
    return Peer(name, "hlm-retrieval", settings, sys.prefix, (*command, "--port", "{port}"), cached=cached)
