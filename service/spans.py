"""The only importer of OpenTelemetry: a request's trace as spans, sent to a collector in batches by a thread."""

import threading
from typing import Self

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from service.answer import StageTimes
from service.tracing import Parent, RequestTrace

DISTRIBUTION = "hlm-retrieval"
TRACES_PATH = "/v1/traces"
STAGES_IN_ORDER = ("tokenize", "queue", "encode", "search")


class OtlpSpans:
    """Makes one span a request and one a stage within it."""

    def __init__(self, processor: SpanProcessor) -> None:
        """Prepare; `to` is the usual way in."""
        # Sampled or not is decided before a span is made, and this process ends its provider itself.
        self._provider = TracerProvider(sampler=ALWAYS_ON, resource=_resource(), shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer(DISTRIBUTION)

    @classmethod
    def to(cls, endpoint: str) -> Self:
        """Spans that go to the collector at a base address, over OTLP/HTTP."""
        return cls(BatchSpanProcessor(OTLPSpanExporter(endpoint.rstrip("/") + TRACES_PATH)))

    def emit(self, parent: Parent | None, trace: RequestTrace) -> None:
        """Make the spans of one request."""
        request = self._tracer.start_span(
            "retrieve",
            _context(parent),
            kind=SpanKind.SERVER,
            attributes=_attributes(trace),
            start_time=trace.started_ns,
        )
        if trace.failed:
            request.set_status(Status(StatusCode.ERROR, trace.outcome))
        if trace.times is not None:
            self._emit_stages(request, trace.times, trace.started_ns)
        request.end(trace.ended_ns)

    def close(self, timeout_s: float) -> None:
        """Send what is left, or give up after `timeout_s`; the library would wait for half a minute."""
        ending = threading.Thread(target=self._provider.shutdown, name="spans-shutdown", daemon=True)
        ending.start()
        ending.join(timeout_s)

    def _emit_stages(self, request: Span, times: StageTimes, started_ns: int) -> None:
        within = set_span_in_context(request, Context())
        for stage in STAGES_IN_ORDER:
            ended_ns = started_ns + round(getattr(times, stage) * 1e9)
            if ended_ns > started_ns:  # a cached answer skips stages
                self._tracer.start_span(stage, within, start_time=started_ns).end(ended_ns)
            started_ns = ended_ns


def _context(parent: Parent | None) -> Context:
    if parent is None:
        return Context()
    flags = TraceFlags(TraceFlags.SAMPLED)
    return set_span_in_context(NonRecordingSpan(SpanContext(parent.trace_id, parent.span_id, True, flags)), Context())


def _attributes(trace: RequestTrace) -> dict[str, str]:
    found = {"http.request.method": "POST", "http.route": "/retrieve", "hlm.outcome": trace.outcome}
    if trace.request_id is not None:
        found["hlm.request_id"] = trace.request_id
    if trace.release is not None:
        found["hlm.release"] = trace.release.name
        found["hlm.model_version"] = trace.release.model_version
        found["hlm.index_version"] = trace.release.index_version
    return found


def _resource() -> Resource:
    """Who sends: what OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say, and our own name where they say none."""
    found = Resource.create()
    if str(found.attributes[SERVICE_NAME]).startswith("unknown_service"):
        found = found.merge(Resource({SERVICE_NAME: DISTRIBUTION}))
    return found
