"""How many `/retrieve` requests a second a GPU server answers within a bound on p99, arrivals being open-loop."""

import argparse
import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.errors import BenchmarkError
from benchmarks.http_load import request_bytes
from benchmarks.open_loop import run_open_loop
from benchmarks.queries import read_queries
from benchmarks.servers import CACHE_OFF, serving

BOUNDS_MS = (10.0, 25.0)
GENERATORS = 4
"""Processes, a core each; one sends 8,000 requests a second."""
SECONDS = 5.0
STEPS = 5
"""Of the bisection: the answer is good to a thirty-second of the range."""
MOST_RATE = 32_000.0
GPU_SETTINGS = {
    "HLM_INFERENCE__EXECUTION_PROVIDERS": '["CUDAExecutionProvider"]',
    "HLM_BATCHING__MAX_BATCH_SIZE": "64",
    "HLM_BATCHING__MAX_BATCH_TOKENS": "4096",
}


@dataclass(frozen=True, slots=True)
class Trial:
    """One offered rate and what came of it."""

    rate: float
    p99_ms: float
    answered_share: float
    generator_busy_share: float


def find_capacities(encoder: Path | None, index: Path | None) -> dict[str, Any]:
    """Bisect the rate for each bound on p99, against a server on the other cores.

    Raises:
        BenchmarkError: there is nothing to serve, or too few cores.
    """
    if encoder is None or index is None:
        raise BenchmarkError("no --encoder and --index were given")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2 * GENERATORS:
        raise BenchmarkError(f"needs {2 * GENERATORS} cores, half of them for clients; found {len(cores)}")
    args = argparse.Namespace(encoder=encoder, index=index)
    report: dict[str, Any] = {}
    with serving(args, set(cores[GENERATORS:]), {**GPU_SETTINGS, **CACHE_OFF}) as server:
        for bound_ms in BOUNDS_MS:
            best, trials = bisect(partial(offer, server.port, cores[:GENERATORS]), bound_ms)
            report[f"p99_{bound_ms:g}_ms"] = {"capacity": best, "trials": [asdict(trial) for trial in trials]}
        names = ("hlm_gpu_utilization_ratio", "hlm_stage_duration_seconds_sum", "hlm_batch_size")
        report["metrics"] = {name: value for name, value in server.metrics().items() if name.startswith(names)}
    return report


def bisect(trial_at: Callable[[float], Trial], bound_ms: float) -> tuple[float, list[Trial]]:
    """The largest rate whose p99 stays within a bound with nothing refused, 0 where none does; and all trials."""
    trials: list[Trial] = []
    good, bad = 0.0, MOST_RATE
    for _ in range(STEPS):
        trial = trial_at((good + bad) / 2)
        trials.append(trial)
        if trial.p99_ms <= bound_ms and trial.answered_share == 1:
            good = trial.rate
        else:
            bad = trial.rate
    return good, trials


def offer(port: int, cores: Sequence[int], rate: float) -> Trial:
    """Offer a rate for some seconds, in equal parts from a process on each core, and join what they saw."""
    with ProcessPoolExecutor(len(cores)) as pool:
        parts = list(pool.map(_generate, cores, itertools.repeat(port), itertools.repeat(rate / len(cores))))
    latencies = np.concatenate([latency_s for latency_s, _, _ in parts])
    sent = sum(count for _, count, _ in parts)
    p99_ms = 1e3 * float(np.percentile(latencies, 99)) if len(latencies) else float("inf")
    return Trial(rate, p99_ms, len(latencies) / sent, max(busy for _, _, busy in parts))


def _generate(core: int, port: int, rate: float) -> tuple[Any, int, float]:
    """Latencies of the answers 200 in seconds, arrivals, and the generator's own business."""
    os.sched_setaffinity(0, {core})
    requests = itertools.cycle([request_bytes(query, 100, 1_000) for query in read_queries(None)])
    load = run_open_loop(port, requests, rate=rate, seconds=SECONDS, seed=core, connections=256)
    return load.latency_s[load.status == 200], len(load.status), load.busy_share
