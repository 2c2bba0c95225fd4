"""Those who learn how requests ended, each from the end of the one line that all requests take."""

from dataclasses import dataclass

from service.answer import StageTimes, coverage_reason
from service.errors import RequestError
from service.exchange import Exchange
from service.monitor import RecallMonitor
from service.pipeline import Found
from service.releases import Releases
from service.request_log import RequestLog
from service.shadow import Shadow
from service.tracing import Tracer


@dataclass(frozen=True, slots=True)
class ReleaseWatcher:
    """Counts by release, and judges the canary."""

    releases: Releases

    def answered(self, exchange: Exchange, found: Found, times: StageTimes) -> None:  # noqa: ARG002
        """A request got its ads."""
        if exchange.release is not None:
            self.releases.traffic.answered(exchange.release, times.total)

    def refused(self, exchange: Exchange, error: RequestError) -> None:
        """A request got none."""
        if exchange.release is not None:
            self.releases.traffic.failed(exchange.release, error.problem)


@dataclass(frozen=True, slots=True)
class QualityWatcher:
    """Has a sample of the answers searched exactly, and compared with other releases'."""

    releases: Releases
    monitor: RecallMonitor
    shadow: Shadow

    def answered(self, exchange: Exchange, found: Found, times: StageTimes) -> None:  # noqa: ARG002
        """A request got its ads."""
        wanted, release = exchange.wanted, exchange.release
        if wanted is None or release is None or found.embedding is None:
            return
        degraded = "smaller_ef_search" in exchange.steps
        self.monitor.offer(release, found.embedding, wanted, found.hits, degraded=degraded)
        if release is self.releases.stable and not degraded:
            self.shadow.offer(wanted, release, found.hits)

    def refused(self, exchange: Exchange, error: RequestError) -> None:
        """Nothing can be learned from it."""


@dataclass(frozen=True, slots=True)
class LogWatcher:
    """Offers answers to the request log."""

    log: RequestLog

    def answered(self, exchange: Exchange, found: Found, times: StageTimes) -> None:
        """A request got its ads."""
        request, release = exchange.request, exchange.release
        if request is not None and release is not None:
            self.log.offer(
                request,
                exchange.request_id,
                release,
                found.hits,
                reason=coverage_reason(found.hits, exchange.steps),
                steps=exchange.steps,
                cached=exchange.cached,
                times=times,
            )

    def refused(self, exchange: Exchange, error: RequestError) -> None:
        """Only answers are logged."""


@dataclass(frozen=True, slots=True)
class TraceWatcher:
    """Has requests traced once they are over."""

    tracer: Tracer

    def answered(self, exchange: Exchange, found: Found, times: StageTimes) -> None:  # noqa: ARG002
        """A request got its ads."""
        self._record(exchange, times, "ok")

    def refused(self, exchange: Exchange, error: RequestError) -> None:
        """A request got none."""
        self._record(exchange, None, error.problem)

    def _record(self, exchange: Exchange, times: StageTimes | None, outcome: str) -> None:
        self.tracer.record(
            exchange.origin.traceparent,
            request_id=exchange.request_id or None,
            release=exchange.release,
            times=times,
            arrived=exchange.origin.arrived,
            outcome=outcome,
        )
