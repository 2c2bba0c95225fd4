"""Which requests are traced, decided at hardly any cost; `service.spans` makes and sends the spans.

A trace is recorded when its request is over, from the durations that were measured anyway, so the path of a request
has no tracing in it.
"""

import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from service.answer import StageTimes
from service.errors import RequestError, StartupError
from service.metrics import Metrics
from service.release import Release
from service.settings import TracingSettings

MOST_TRACES_A_SECOND = 50
"""A trace costs about 0.3 ms of Python, building and export together: this bounds it to 2 % of a core, whatever the
callers' flags ask for."""

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 0x01


@dataclass(frozen=True, slots=True)
class Parent:
    """The caller's span, as its `traceparent` header names it."""

    trace_id: int
    span_id: int
    sampled: bool


@dataclass(frozen=True, slots=True)
class RequestTrace:
    """What a trace tells of a request; its query is not among it."""

    request_id: str | None
    release: Release | None
    times: StageTimes | None
    """Seconds in each stage; None where it was refused before its answer was made."""
    started_ns: int
    ended_ns: int
    """Nanoseconds since 1970."""
    outcome: str
    failed: bool
    """Whether the fault or the state of the service, rather than the request, kept it from being answered."""


class SpanSink(Protocol):
    """Where traces go."""

    def emit(self, parent: Parent | None, trace: RequestTrace) -> None:
        """Make the spans of one request."""

    def close(self, timeout_s: float) -> None:
        """Send what is left, or give up after `timeout_s`."""


def open_tracer(settings: TracingSettings, metrics: Metrics) -> "Tracer | None":
    """The tracer that the settings ask for; None where tracing is off.

    Raises:
        StartupError: the packages it needs are not installed.
    """
    if settings.otlp_endpoint is None:
        return None
    try:
        from service.spans import OtlpSpans  # noqa: PLC0415 - an extra that most do without
    except ModuleNotFoundError as error:
        raise StartupError(
            "tracing.otlp_endpoint is set, but OpenTelemetry is not installed; expected the extra `otel`: "
            "pip install 'hlm-retrieval[otel]'"
        ) from error
    return Tracer(settings.sample_share, OtlpSpans.to(settings.otlp_endpoint), metrics)


class Tracer:
    """Records the requests whose callers trace them, and a share of the others."""

    def __init__(
        self,
        share: float,
        sink: SpanSink,
        metrics: Metrics,
        *,
        chance: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.perf_counter,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Prepare.

        Args:
            share: of the requests without a `traceparent`, how many are traced.
            sink: takes the traces.
            metrics: counts them.
            chance: a number from 0 to 1.
            clock: the one that arrivals are on, in seconds.
            wall_ns: nanoseconds since 1970.
        """
        self._share = share
        self._sink = sink
        self._metrics = metrics
        self._chance = chance
        self._clock = clock
        self._wall_ns = wall_ns
        self._second = 0
        self._in_second = 0
        refusals: list[type[RequestError]] = [RequestError, *RequestError.__subclasses__()]
        self._failures = {refusal.problem for refusal in refusals if refusal.status >= 500}

    def record(
        self,
        traceparent: str | None,
        *,
        request_id: str | None,
        release: Release | None,
        times: StageTimes | None,
        arrived: float,
        outcome: str,
    ) -> None:
        """Trace a request that is over, if its caller traces it or chance will have it.

        Args:
            traceparent: the header of that name (W3C Trace Context); one that is malformed counts as none.
            request_id: None where the request was refused before it had one.
            release: what answered it.
            times: seconds in each stage, None where there is no answer.
            arrived: seconds of the tracer's clock, as `perf_counter` gives them.
            outcome: one of `service.metrics.OUTCOMES`.
        """
        parent = None if traceparent is None else parse_traceparent(traceparent)
        if not (self._chance() < self._share if parent is None else parent.sampled):
            return
        now = self._clock()
        if not self._within_limit(int(now)):
            self._metrics.traced("limited")
            return
        ended_ns = self._wall_ns()
        started_ns = ended_ns - int((now - arrived) * 1e9)
        failed = outcome in self._failures
        self._sink.emit(parent, RequestTrace(request_id, release, times, started_ns, ended_ns, outcome, failed))
        self._metrics.traced("recorded")

    def close(self, timeout_s: float) -> None:
        """Send what is left, or give up after `timeout_s`."""
        self._sink.close(timeout_s)

    def _within_limit(self, second: int) -> bool:
        if second != self._second:
            self._second, self._in_second = second, 0
        self._in_second += 1
        return self._in_second <= MOST_TRACES_A_SECOND


def parse_traceparent(header: str) -> Parent | None:
    """The caller's span, or None where the header is not one (W3C Trace Context, part 3.2)."""
    found = _TRACEPARENT.fullmatch(header)
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more):  # later versions may say more, this one does not
        return None
    parent = Parent(int(trace_id, 16), int(span_id, 16), bool(int(flags, 16) & _SAMPLED))
    return parent if parent.trace_id and parent.span_id else None
