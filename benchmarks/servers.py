"""The processes that benchmarks measure, each confined to given cores: the service, and its bare pipeline."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.errors import BenchmarkError


def cache_of(size_bytes: int) -> Mapping[str, str]:
    """Environment of a server whose embedding cache has this size; 0 turns it off."""
    return {"HLM_CACHE__EMBEDDING_BYTES": str(size_bytes)}


CACHE_OFF = cache_of(0)
"""Every query that is answered was encoded."""


@dataclass(frozen=True, slots=True)
class Server:
    """A service that is ready."""

    port: int
    pid: int

    def metrics(self) -> dict[str, float]:
        """Every series by its name with labels, as in `hlm_requests_total{outcome="ok"}`."""
        with urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30) as answer:
            families = text_string_to_metric_families(answer.read().decode())
        return {sample.name + _labels(sample.labels): sample.value for family in families for sample in family.samples}

    def rss_bytes(self) -> int:
        """Its own resident memory; pages of artifact files, which the recall monitor reads, are the page cache's."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        [kibibytes] = [line.split()[1] for line in lines if line.startswith("RssAnon:")]
        return int(kibibytes) * 1024


@dataclass(frozen=True, slots=True)
class BareLoad:
    """One measurement of the bare pipeline."""

    batch_size: int
    took_ms: list[float]
    """Of each batch."""

    @property
    def queries_per_second(self) -> float:
        """Answered, while it ran."""
        return self.batch_size * len(self.took_ms) / sum(self.took_ms) * 1e3

    @property
    def p50_ms(self) -> float:
        """Of a whole batch."""
        return float(np.percentile(self.took_ms, 50))

    @property
    def p99_ms(self) -> float:
        """Of a whole batch."""
        return float(np.percentile(self.took_ms, 99))


class Bare:
    """The bare pipeline in a process of its own; `start` and `result` apart, so that several can run at once."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self._batch_size = 0

    def start(self, batch_size: int, seconds: float) -> None:
        """Begin a measurement."""
        assert self._process.stdin is not None
        self._batch_size = batch_size
        self._process.stdin.write(json.dumps({"batch_size": batch_size, "seconds": seconds}) + "\n")
        self._process.stdin.flush()

    def result(self) -> "BareLoad":
        """Of the measurement that was begun."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise BenchmarkError("the bare pipeline ended; its error is above")
        return BareLoad(self._batch_size, json.loads(line))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What every benchmark of a server is told."""
    parser.add_argument("--encoder", type=Path, required=True, help="encoder artifact")
    parser.add_argument("--index", type=Path, required=True, help="index artifact")
    queries_help = "tab-separated with a header line and a column text, gzip or not; default: 1,000 shipped ones"
    parser.add_argument("--queries", type=Path, help=queries_help)
    parser.add_argument("--top-k", type=int, default=100)


def two_cores() -> tuple[int, int]:
    """A core for the server and one for the clients.

    Raises:
        BenchmarkError: this process may use only one.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise BenchmarkError("needs two cores: one for the server, one for the clients")
    return cores[0], cores[1]


@contextmanager
def serving(args: argparse.Namespace, cores: set[int], settings: Mapping[str, str]) -> Iterator[Server]:
    """The service on `cores`, with `HLM_` variables of its own, until the block ends.

    Raises:
        BenchmarkError: it did not start.
    """
    command = [sys.executable, "hlm.py", "serve", "--name", "bench", "--port", "0"]
    command += ["--encoder", str(args.encoder), "--index", str(args.index)]
    with _confined(command, cores, settings) as process:
        line = process.stdout.readline()
        if "http://" not in line:
            raise BenchmarkError("the server did not start; its error is above")
        yield Server(int(line.split("http://")[1].split(":")[1]), process.pid)


@contextmanager
def bare_pipeline(args: argparse.Namespace, core: int, *options: str) -> Iterator[Bare]:
    """The bare pipeline on one core, until the block ends; `options` are those of `benchmarks.bare`.

    Raises:
        BenchmarkError: it did not start.
    """
    command = [sys.executable, "-m", "benchmarks.bare", "--encoder", str(args.encoder), "--index", str(args.index)]
    command += ["--queries", str(args.queries)] if args.queries else []
    command += ["--top-k", str(args.top_k), *options]
    with _confined(command, {core}, {}) as process:
        if process.stdout.readline() != "ready\n":
            raise BenchmarkError("the bare pipeline did not start; its error is above")
        yield Bare(process)


@contextmanager
def _confined(command: list[str], cores: set[int], settings: Mapping[str, str]) -> Iterator[Any]:
    """A process that is killed at the end: nothing it does then is of interest."""
    where = ",".join(map(str, sorted(cores)))
    process = subprocess.Popen(
        ["taskset", "-c", where, *command],  # taskset becomes the command, so that its pid is the server's
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | dict(settings),
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _labels(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}" if labels else ""
