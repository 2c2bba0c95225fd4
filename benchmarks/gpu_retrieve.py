"""How many `/retrieve` requests a second a GPU server answers within a bound on p99, arrivals being open-loop.

The server is that of `config/serve.gpu.yaml`: front processes before one engine, with all cores but those of the
generators. After the search for its capacity it takes that load once more, while stages and the GPU are watched; then
releases are swapped under half of it, to an encoder that is loaded, captured and measured anew, and back.
"""

import itertools
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from artifacts.errors import HlmError
from benchmarks.errors import BenchmarkError
from benchmarks.gpu_timing import Clock
from benchmarks.gpu_watch import gpu_means, looked_at_gpu, stage_means
from benchmarks.http_load import request_bytes
from benchmarks.open_loop import run_open_loop
from benchmarks.queries import read_queries
from benchmarks.replica import Replica
from benchmarks.servers import CACHE_OFF, Server

CONFIG = Path(__file__).resolve().parents[1] / "config" / "serve.gpu.yaml"
BOUNDS_MS = (10.0, 25.0)
TOP_K = 100
NO_BOUNDS = {"HLM_SWAP__MIN_GOLDEN_OVERLAP": "0", "HLM_SWAP__MIN_ANN_RECALL": "0"}
"""Random weights know nothing of made-up embeddings."""
SWAP_S = 6.0
"""Of load around a swap, which begins half a second after it; more follows where it takes longer."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    generators: int = 4
    """Processes, a core each; one sends 8,000 requests a second."""
    seconds: float = 4.0
    steps: int = 5
    """Of the bisection: the answer is good to a thirty-second of the range."""
    most_rate: float = 32_000.0
    swaps: int = 2
    ads: int = 100_000
    """Of a made-up index."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Environment of the server beside `config/serve.gpu.yaml`."""
    timeout_ms: int = 1_000
    """Of each request."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One offered rate and what came of it."""

    rate: float
    p50_ms: float | None
    p99_ms: float | None
    """None where nothing was answered."""
    sent: int
    failed: int
    """Refused, or answered with anything but 200, or not at all."""
    generator_busy_share: float
    """Near 1 the generators are what limits."""


def measure_retrieve(
    found: dict[str, Any], clock: Clock, encoder: Path | None, index: Path | None, plan: Plan | None = None
) -> None:
    """Find the capacities, look at the load, swap under it.

    Args:
        found: gets an entry a bound, `at_capacity` and `swap`.
        clock: of this part.
        encoder: artifact; None for random weights.
        index: artifact of the same space; None for made-up ads.
        plan: by default, what a machine with a GPU and 16 cores is for.

    Raises:
        BenchmarkError: there are too few cores, or only one of the artifacts was given.
    """
    plan = plan or Plan()
    if (encoder is None) != (index is None):
        raise BenchmarkError("--encoder and --index belong together: give both or neither")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2 * plan.generators:
        raise BenchmarkError(f"needs {2 * plan.generators} cores, half of them for clients; found {len(cores)}")
    with tempfile.TemporaryDirectory(prefix="hlm-gpu-") as scratch:
        made = encoder is None or index is None
        if encoder is None or index is None:
            encoder, index = _make(Path(scratch), plan.ads)
        environment = {**CACHE_OFF, **(NO_BOUNDS if made else {}), **plan.settings}
        found |= {"artifacts": "random weights, made-up ads" if made else f"{encoder}, {index}"}
        found |= {"cores": {"generators": plan.generators, "server": len(cores) - plan.generators}}
        with _Running(Path(scratch), encoder, index, environment, cores, plan) as running:
            found["front_processes"] = running.fronts
            _search(found, clock, running, plan)
            capacity = found[_name(BOUNDS_MS[0])]["capacity"] or found[_name(BOUNDS_MS[-1])]["capacity"]
            if capacity:
                found["at_capacity"] = running.watch(capacity)
                clock.check()
                found["swap"] = running.swap(capacity / 2, plan.swaps)


def _name(bound_ms: float) -> str:
    return f"p99_{bound_ms:g}_ms"


def _make(scratch: Path, ads: int) -> tuple[Path, Path]:
    from benchmarks.gpu_artifacts import write_encoder, write_index  # noqa: PLC0415 - needs the package onnx

    encoder, index = scratch / "encoder", scratch / "index"
    write_index(index, write_encoder(encoder), ads)
    return encoder, index


def _search(found: dict[str, Any], clock: Clock, running: "_Running", plan: Plan) -> None:
    """The capacity of each bound, the looser one's from that of the stricter on."""
    good = 0.0
    for bound_ms in BOUNDS_MS:
        trials: list[Trial] = []
        entry = found[_name(bound_ms)] = {"capacity": good or None, "trials": []}
        for best in bisect(running.offer, bound_ms, trials, good, plan):
            good = best
            entry |= {"capacity": good or None, "trials": [asdict(trial) for trial in trials]}
            clock.check()
        entry["capacity"] = good  # 0 is a finding only after the last trial


def bisect(
    trial_at: Callable[[float], Trial], bound_ms: float, trials: list[Trial], good: float, plan: Plan
) -> Iterator[float]:
    """After each trial, the largest rate so far whose p99 stays within a bound with nothing refused; 0 for none."""
    bad = plan.most_rate
    for _ in range(plan.steps):
        trial = trial_at((good + bad) / 2)
        trials.append(trial)
        if trial.p99_ms is not None and trial.p99_ms <= bound_ms and not trial.failed:
            good = trial.rate
        else:
            bad = trial.rate
        yield good


class _Running:
    """The server, its generators, and what is seen of both."""

    def __init__(
        self,
        scratch: Path,
        encoder: Path,
        index: Path,
        environment: Mapping[str, str],
        cores: Sequence[int],
        plan: Plan,
    ) -> None:
        self._encoders = [encoder, scratch / "other-encoder"]
        shutil.copytree(encoder, self._encoders[1])  # another directory is another encoder
        self._index = index
        self._plan = plan
        self._cores = cores[: plan.generators]
        self._config = scratch / "serve" / "serve.yaml"
        self._config.parent.mkdir()
        self._settings: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
        self._write(0)
        self._replica = Replica(["--config", str(self._config)], environment, cores[plan.generators :])

    def __enter__(self) -> "_Running":
        context = multiprocessing.get_context("spawn")  # this process may have threads, and CUDA
        self._pool = ProcessPoolExecutor(len(self._cores), context)
        self._replica.start()
        try:
            self._replica.wait_until_ready()
        except HlmError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        self._replica.kill()

    @property
    def _server(self) -> Server:
        return Server(self._replica.port, self._replica.pid)

    @property
    def fronts(self) -> int:
        """How many front processes answer."""
        return int(self._server.metrics().get("hlm_front_processes", 0))

    def offer(self, rate: float, seconds: float | None = None) -> Trial:
        """Offer a rate for some seconds."""
        return join(rate, [one.result() for one in self._begin(rate, seconds or self._plan.seconds)])

    def watch(self, rate: float) -> dict[str, Any]:
        """Offer a rate, and say what the server and the GPU did meanwhile."""
        before = self._server.metrics()
        with looked_at_gpu() as loads:
            trial = self.offer(rate)
        return {**asdict(trial), **stage_means(before, self._server.metrics()), **gpu_means(loads)}

    def swap(self, rate: float, swaps: int) -> dict[str, Any]:
        """Swap releases under load, each with an encoder that is loaded anew."""
        trials: list[Trial] = []
        for number in range(1, swaps + 1):
            started = time.monotonic()
            load = self._begin(rate, SWAP_S)
            time.sleep(0.5)
            self._write(number)
            trials.append(join(rate, [one.result() for one in load]))
            while self._served() != f"gpu-{number}":
                if time.monotonic() - started > 60:
                    raise BenchmarkError(f"release gpu-{number} was not served within 60 s; the server says why")
                trials.append(self.offer(rate))
        return {
            "rate": rate,
            "swaps": swaps,
            "requests": sum(trial.sent for trial in trials),
            "failed": sum(trial.failed for trial in trials),
            "p99_ms": max((trial.p99_ms for trial in trials if trial.p99_ms is not None), default=None),
        }

    def _begin(self, rate: float, seconds: float) -> list["Future[Part]"]:
        share = rate / len(self._cores)
        to = self._replica.port, self._plan.timeout_ms
        return [self._pool.submit(_generate, core, *to, share, seconds) for core in self._cores]

    def _served(self) -> str:
        return str(yaml.safe_load(self._replica.get("/info")[1])["release"]["name"])

    def _write(self, number: int) -> None:
        """Ask for a release by its number; odd ones have the copy of the encoder."""
        paths = {"encoder": str(self._encoders[number % 2].resolve()), "index": str(self._index.resolve())}
        temporary = self._config.with_suffix(".new")
        temporary.write_text(yaml.safe_dump({**self._settings, "release": {"name": f"gpu-{number}", **paths}}))
        temporary.rename(self._config)


Part = tuple[Any, int, float]
"""Of a generator: latencies of the answers 200 in seconds, arrivals, and its business."""


def _generate(core: int, port: int, timeout_ms: int, rate: float, seconds: float) -> Part:
    os.sched_setaffinity(0, {core})
    requests = itertools.cycle([request_bytes(query, TOP_K, timeout_ms) for query in read_queries(None)])
    load = run_open_loop(port, requests, rate=rate, seconds=seconds, seed=core, connections=256)
    return load.latency_s[load.status == 200], len(load.status), load.busy_share


def join(rate: float, parts: Sequence[Part]) -> Trial:
    """What all generators saw."""
    latencies, sent = np.concatenate([part[0] for part in parts]), sum(part[1] for part in parts)
    p50, p99 = (1e3 * np.percentile(latencies, [50, 99])).tolist() if len(latencies) else (None, None)
    busy = max(part[2] for part in parts)
    return Trial(rate, p50, p99, sent, sent - len(latencies), busy)
