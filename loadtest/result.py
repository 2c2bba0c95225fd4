"""The result of a load test: what is written as JSON, shown, compared and drawn."""

import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from loadtest.errors import LoadTestError
from loadtest.load import Load
from loadtest.recorder import STAGES
from loadtest.samples import Floats, Samples, percentile

RANKS = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}
BUSY_SHARE = 0.9
LATE_MS = 2.0
LATE_SHARE = 0.1
"""A generator limits a run if it was busier than this, or sent later than both of those (share: of the p99 latency)."""
BINS_A_DECADE = 40


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Generator(_Model):
    """How the generator itself fared."""

    busy_share: float
    """Of one core, by the busiest of its processes; polling for the next arrival is not counted."""
    late_ms: dict[str, float | None]
    """How long after they were due requests were sent; zeros in a closed loop."""
    limits: bool
    """Whether it, not the service, may be what was measured."""


class Histogram(_Model):
    """Counts of latencies between edges in ms, each edge some 6 % above the one before."""

    edges_ms: list[float]
    counts: list[int]


class Phase(_Model):
    """One load and what it saw."""

    name: str
    load: str
    open_loop: bool
    from_s: float
    seconds: float
    requests: int
    offered_qps: float
    """Requests that were due a second; in a closed loop as many as were answered."""
    achieved_qps: float
    """Well answered a second while the load lasted."""
    latency_ms: dict[str, float | None]
    """Of those that were answered well, from when they were due."""
    error_share: float
    errors: dict[str, int]
    cached_share: float
    degraded_share: float
    stages_ms: dict[str, dict[str, float | None]]
    """The server's own timings."""
    histogram: Histogram
    generator: Generator


class Second(_Model):
    """What was due in one second."""

    at_s: int
    offered: int
    errors: int
    achieved: int
    """Well answered within this second, whenever they were due."""
    p50_ms: float | None
    p99_ms: float | None


class Event(_Model):
    """Something that was done to the service meanwhile."""

    at_s: float
    name: str
    outcome: str = ""
    done: bool = True
    """Whether it came about as planned."""


class Verdict(_Model):
    """Whether a phase met one objective."""

    phase: str
    objective: str
    """As in `p99=25ms`."""
    found: str
    met: bool


class Capacity(_Model):
    """The highest rate that met a bound, and what that means."""

    rate: float | None
    """None where not even the lowest did."""
    bound: str
    knee_rate: float | None
    samples: int
    confidence: float
    margin: float


class Result(_Model):
    """Everything that a load test found."""

    title: str
    started: datetime
    url: str
    settings: dict[str, Any]
    versions: dict[str, str]
    service: dict[str, Any]
    """What it says of its release and settings, empty where it says nothing."""
    phases: list[Phase]
    timeline: list[Second]
    events: list[Event] = []
    capacity: Capacity | None = None
    verdicts: list[Verdict] = []
    """A row a phase and objective."""
    interrupted: bool = False
    """Ended before its time, by Ctrl-C or SIGTERM."""

    @property
    def requests(self) -> int:
        """Of all phases."""
        return sum(phase.requests for phase in self.phases)

    @property
    def good_requests(self) -> int:
        """Those that were answered well."""
        return sum(sum(phase.histogram.counts) for phase in self.phases)

    @property
    def generator_limits(self) -> bool:
        """Whether the generator may be what was measured, in any phase."""
        return any(phase.generator.limits for phase in self.phases)


def summarize(load: Load, from_s: float, samples: Samples, seconds: float | None = None) -> Phase:
    """What the samples of a load say.

    Args:
        load: as it was sent.
        from_s: its start, in seconds since the first load's.
        samples: all of it, `due_s` from the start of this load.
        seconds: how long it lasted, where it was ended before its time.
    """
    seconds = seconds or load.seconds
    latency_ms = samples.latency_ms
    done_s = (samples.column("due_s") + samples.column("latency_s"))[samples.ok]
    return Phase(
        name=load.name,
        load=str(load),
        open_loop=load.rate is not None,
        from_s=round(from_s, 3),
        seconds=seconds,
        requests=len(samples),
        offered_qps=len(samples) / seconds,
        achieved_qps=float(np.sum(done_s <= seconds)) / seconds,
        latency_ms=_ranks(latency_ms),
        error_share=samples.error_share,
        errors=samples.errors(),
        cached_share=_mean(samples.column("cached")[samples.ok]),
        degraded_share=_mean(samples.column("degraded")[samples.ok]),
        stages_ms={stage: _ranks(samples.stages_ms()[stage]) for stage in STAGES},
        histogram=_histogram(latency_ms),
        generator=_generator(load, samples),
    )


def timeline(samples: Samples) -> list[Second]:
    """A row a second; `due_s` counts from the start."""
    due, latency, ok = samples.column("due_s"), samples.column("latency_s") * 1e3, samples.ok
    second = np.floor(due).astype(int)
    done = np.floor(due + latency / 1e3)[ok].astype(int)
    rows = []
    for at_s in range(int(second.max()) + 1 if len(samples) else 0):
        here = second == at_s
        rows.append(
            Second(
                at_s=at_s,
                offered=int(here.sum()),
                errors=int((here & ~ok).sum()),
                achieved=int((done == at_s).sum()),
                p50_ms=percentile(latency[here & ok], 50),
                p99_ms=percentile(latency[here & ok], 99),
            )
        )
    return rows


def versions() -> dict[str, str]:
    """Of what generated the load."""
    names = ("locust", "gevent", "geventhttpclient", "hlm-retrieval")
    return {"python": platform.python_version(), **{name: version(name) for name in names}, "machine": machine()}


def machine() -> str:
    """The processor's name and the number of its cores, as Linux says."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]} × {len(names)}" if names else platform.processor()


def now() -> datetime:
    """To the second."""
    return datetime.now(UTC).replace(microsecond=0)


def read_result(path: Path) -> Result:
    """The result in a file.

    Raises:
        LoadTestError: there is none.
    """
    try:
        return Result.model_validate_json(path.read_bytes())
    except OSError as error:
        raise LoadTestError(f"{path}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise LoadTestError(f"{path}: is no result of a load test ({where}: {first['msg']})") from error


def _ranks(values: Floats) -> dict[str, float | None]:
    known = values[~np.isnan(values)]
    found = {name: percentile(known, rank) for name, rank in RANKS.items()}
    return found | {"mean": float(np.mean(known)) if len(known) else None}


def _mean(values: Floats) -> float:
    return float(np.mean(values)) if len(values) else 0.0


def _histogram(latency_ms: Floats) -> Histogram:
    if not len(latency_ms):
        return Histogram(edges_ms=[], counts=[])
    steps = np.log10(np.maximum(latency_ms, 1e-3)) * BINS_A_DECADE
    first, last = int(np.floor(steps.min())), int(np.floor(steps.max())) + 1
    counts = np.bincount(np.floor(steps).astype(int) - first, minlength=last - first)
    edges = 10 ** (np.arange(first, last + 1) / BINS_A_DECADE)
    return Histogram(edges_ms=[float(f"{edge:.4g}") for edge in edges], counts=counts.tolist())


def _generator(load: Load, samples: Samples) -> Generator:
    late_ms = samples.column("late_s") * 1e3
    p99_late, p99 = percentile(late_ms, 99) or 0.0, percentile(samples.latency_ms, 99) or 0.0
    sent_late = load.rate is not None and p99_late > max(LATE_MS, LATE_SHARE * p99)
    return Generator(
        busy_share=samples.busy_share,
        late_ms=_ranks(late_ms),
        limits=samples.busy_share > BUSY_SHARE or sent_late,
    )
