"""Proves that a release answers: a query of one word through its encoder and its index, beside the traffic.

Requests that were answered prove it as well, so the probe runs on an idle service alone; and never in the queue, which
would make health wait behind traffic.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter, time

import numpy as np

from index.filters import Wanted
from service.device_faults import DeviceFaultError, DeviceLostError
from service.errors import ServiceError
from service.metrics import Metrics
from service.release import Release

PROBE_QUERY = "a"
PROOF_S = 2.0
"""How long a proof is good for, and the time from one probe to the next."""
MOST_STUCK = 3
"""So many probes that do not come back: the engine hangs, and each has cost a thread."""
MOST_NORM_ERROR = 0.01
"""An fp16 graph normalises to about 0.001."""

logger = logging.getLogger(__name__)


class ProbeError(ServiceError):
    """A release does not answer as it should; the message says how."""


def probe(release: Release) -> None:
    """Encode and search one short query.

    Raises:
        ProbeError: the embedding is not one, or no ad was found. Whatever encoder and index raise comes through.
    """
    embeddings = release.encoder.encode([release.encoder.tokenize(PROBE_QUERY)])
    dim = release.ad_index.manifest.space.dim
    if embeddings.shape != (1, dim):
        raise ProbeError(f"the encoder gives shape {embeddings.shape} where (1, {dim}) was expected")
    norm = float(np.linalg.norm(embeddings))
    if not abs(norm - 1) <= MOST_NORM_ERROR:  # so written for what is not a number
        raise ProbeError(f"the encoder gives an embedding of norm {norm:.3g} where 1 was expected")
    (hits,) = release.ad_index.search(embeddings, [Wanted(1, at=time())])
    if not len(hits.rows) and hits.short != "filtered" and release.ad_index.stats().ad_count:
        raise ProbeError("the index finds no ad")
    if not np.isfinite(hits.scores).all():
        raise ProbeError("the index gives scores that are not finite")


@dataclass(frozen=True, slots=True)
class _Failure:
    at: float
    reason: str


@dataclass(frozen=True, slots=True)
class _Run:
    thread: threading.Thread
    started_at: float


class Probe:
    """Says whether what is served has proved itself lately; for one thread, but for `proved`."""

    def __init__(
        self,
        release: Callable[[], Release | None],
        metrics: Metrics,
        *,
        limit_s: float,
        clock: Callable[[], float] = perf_counter,
        run: Callable[[Release], None] = probe,
    ) -> None:
        """Prepare.

        Args:
            release: the one that requests are answered from; verified before it was, so it counts as proved at first.
            metrics: counts probes.
            limit_s: how long a probe may take.
            clock: seconds; the one that `tick` gets its time from.
            run: the probe itself.
        """
        self._release = release
        self._metrics = metrics
        self._limit_s = limit_s
        self._clock = clock
        self._probe = run
        self._proved_at = clock()
        self._failure: _Failure | None = None
        self._run: _Run | None = None
        self._stuck: list[threading.Thread] = []
        self._lost = False
        self._next_at = float("-inf")

    @property
    def problem(self) -> str | None:
        """Why the release is not proved; None while it is."""
        failure = self._failure
        return None if failure is None or failure.at < self._proved_at else failure.reason

    @property
    def hopeless(self) -> bool:
        """Whether the engine hangs for good or its device is lost, as far as anybody can tell."""
        return self._lost or len(self._stuck) >= MOST_STUCK

    def proved(self) -> None:
        """The release has just encoded and searched a query; from any thread."""
        self._proved_at = self._clock()

    def doubt(self, reason: str) -> None:
        """Something was wrong: only what is proved from now on counts."""
        self._failure = _Failure(self._clock(), reason)
        self._next_at = float("-inf")

    def tick(self, now: float, resumed_at: float = float("-inf")) -> None:
        """Take note of what became of a probe, and start one where proof is wanted; never waits.

        Args:
            now: seconds of the clock.
            resumed_at: since when the process has been running without standing still as a whole.
        """
        self._stuck = [thread for thread in self._stuck if thread.is_alive()]
        if self._run is not None and not self._run.thread.is_alive():
            self._run = None
        if self._run is not None and now - max(self._run.started_at, resumed_at) >= self._limit_s:
            self._stuck.append(self._run.thread)
            self._run = None
            self._failed(now, f"a probe of the engine has not come back in {self._limit_s:g} s")
        wanted = self.problem is not None or now - self._proved_at >= PROOF_S
        if wanted and self._run is None and now >= self._next_at and not self.hopeless:
            self._start(now)

    def _start(self, now: float) -> None:
        release = self._release()
        if release is None:
            return
        self._next_at = now + PROOF_S
        thread = threading.Thread(target=self._try, args=(release,), name="probe", daemon=True)
        self._run = _Run(thread, now)
        thread.start()

    def _try(self, release: Release) -> None:
        try:
            self._probe(release)
        except Exception as error:  # whatever it is, it is the answer
            reason = str(error) if isinstance(error, ProbeError | DeviceFaultError) else type(error).__name__
            self._lost = isinstance(error, DeviceLostError)
            first = self.problem is None
            self._failed(self._clock(), f"a probe of the engine failed: {reason}")
            if first:
                logger.exception("a probe of the engine failed")
        else:
            self._metrics.probed("passed")
            self.proved()

    def _failed(self, now: float, reason: str) -> None:
        self._failure = _Failure(now, reason)
        self._metrics.probed("failed")
