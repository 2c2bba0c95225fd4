"""Traces: who is traced, what a trace says, and that a real export reaches a collector."""

import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import cast

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from service.answer import StageTimes
from service.errors import StartupError
from service.metrics import Metrics
from service.release import Release
from service.settings import TracingSettings
from service.spans import OtlpSpans
from service.tracing import MOST_TRACES_A_SECOND, Parent, Tracer, open_tracer, parse_traceparent
from tests.waiting import wait_until

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE}-{SPAN}-01"
UNSAMPLED = f"00-{TRACE}-{SPAN}-00"
RELEASE = cast("Release", SimpleNamespace(name="a", model_version="m-1", index_version="i-1"))
TIMES = StageTimes(tokenize=0.001, queue=0.002, encode=0.004, search=0.003, total=0.0101)
START_NS = 1_700_000_000_000_000_000
NOW = 50.0


class Traced:
    """A tracer whose spans stay in memory, on a clock that stands still."""

    def __init__(self, share: float = 0.0, chance: float = 0.5) -> None:
        self.exporter = InMemorySpanExporter()
        self.metrics = Metrics()
        self.now = NOW
        self.tracer = Tracer(
            share,
            OtlpSpans(SimpleSpanProcessor(self.exporter)),
            self.metrics,
            chance=lambda: chance,
            clock=lambda: self.now,
            wall_ns=lambda: START_NS + 10_250_000,
        )

    def record(self, traceparent: str | None, *, outcome: str = "ok", times: StageTimes | None = TIMES) -> None:
        self.tracer.record(
            traceparent, request_id="r-1", release=RELEASE, times=times, arrived=self.now - 0.01025, outcome=outcome
        )

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}


def test_a_request_is_one_span_of_its_caller_with_one_a_stage_at_the_times_they_had():
    traced = Traced()
    traced.record(SAMPLED)
    spans = traced.spans
    within = {
        name: (round((span.start_time or 0) - START_NS, -3), round((span.end_time or 0) - START_NS, -3))
        for name, span in spans.items()
    }
    assert within == {
        "retrieve": (0, 10_250_000),
        "tokenize": (0, 1_000_000),
        "queue": (1_000_000, 3_000_000),
        "encode": (3_000_000, 7_000_000),
        "search": (7_000_000, 10_000_000),
    }
    root = spans.pop("retrieve")
    assert root.parent is not None
    assert root.context is not None
    assert (f"{root.parent.trace_id:032x}", f"{root.parent.span_id:016x}") == (TRACE, SPAN)
    assert {span.parent.span_id for span in spans.values() if span.parent} == {root.context.span_id}
    assert {f"{span.context.trace_id:032x}" for span in spans.values() if span.context} == {TRACE}


def test_a_span_names_versions_and_outcome_and_has_no_query():
    traced = Traced()
    traced.record(SAMPLED)
    assert dict(traced.spans["retrieve"].attributes or {}) == {
        "http.request.method": "POST",
        "http.route": "/retrieve",
        "hlm.outcome": "ok",
        "hlm.request_id": "r-1",
        "hlm.release": "a",
        "hlm.model_version": "m-1",
        "hlm.index_version": "i-1",
    }


@pytest.mark.parametrize(
    ("traceparent", "share", "is_traced"),
    [
        (SAMPLED, 0.0, True),
        (UNSAMPLED, 1.0, False),
        (None, 0.6, True),
        (None, 0.4, False),
        ("garbage", 0.6, True),
        ("garbage", 0.4, False),
    ],
    ids=[
        *("caller samples", "caller does not", "no caller, in the share", "no caller, not in it"),
        *("malformed, in the share", "malformed, not in it"),
    ],
)
def test_the_callers_flag_decides_and_otherwise_the_share(traceparent: str | None, share: float, is_traced: bool):
    traced = Traced(share, chance=0.5)
    traced.record(traceparent)
    assert ("retrieve" in traced.spans) == is_traced


@pytest.mark.parametrize(
    ("outcome", "status"), [("ok", "UNSET"), ("invalid_request", "UNSET"), ("overloaded", "ERROR")], ids=str
)
def test_an_error_is_what_the_service_could_not_do(outcome: str, status: str):
    traced = Traced()
    traced.record(SAMPLED, outcome=outcome, times=None)
    assert set(traced.spans) == {"retrieve"}
    assert traced.spans["retrieve"].status.status_code.name == status


def test_a_cached_answer_has_no_spans_of_stages_it_skipped():
    traced = Traced()
    traced.record(SAMPLED, times=StageTimes(tokenize=0.001, queue=0.0, encode=0.0, search=0.003, total=0.004))
    assert set(traced.spans) == {"retrieve", "tokenize", "search"}


def test_callers_who_trace_everything_get_so_many_a_second_and_no_more():
    traced = Traced()
    for _ in range(MOST_TRACES_A_SECOND + 5):
        traced.record(SAMPLED)
    traced.now += 1
    traced.record(SAMPLED)
    values = {
        result: traced.metrics.registry.get_sample_value("hlm_traces_total", {"result": result})
        for result in ("recorded", "limited")
    }
    assert values == {"recorded": MOST_TRACES_A_SECOND + 1, "limited": 5}


@pytest.mark.parametrize(
    ("header", "parent"),
    [
        (SAMPLED, Parent(int(TRACE, 16), int(SPAN, 16), True)),
        (f"00-{TRACE}-{SPAN}-03", Parent(int(TRACE, 16), int(SPAN, 16), True)),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like", Parent(int(TRACE, 16), int(SPAN, 16), True)),
        (f"00-{TRACE}-{SPAN}-01-more", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        ("", None),
    ],
    ids=[
        *("sampled", "another flag", "later version", "more in version 0", "forbidden version", "capitals"),
        *("no trace id", "no span id", "empty"),
    ],
)
def test_a_traceparent_is_read_as_w3c_has_it(header: str, parent: Parent | None):
    assert parse_traceparent(header) == parent


@pytest.fixture
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """A collector's address, and what it was sent."""
    received: list[ExportTraceServiceRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            assert self.path == "/v1/traces"
            received.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", received
        server.shutdown()
        thread.join()


def test_a_collector_gets_the_spans(collector: tuple[str, list[ExportTraceServiceRequest]]):
    address, received = collector
    tracer = open_tracer(TracingSettings(otlp_endpoint=address), Metrics())
    assert tracer is not None
    tracer.record(SAMPLED, request_id="r-1", release=RELEASE, times=TIMES, arrived=0.0, outcome="ok")
    tracer.close(30)
    wait_until(lambda: bool(received))
    (resource,) = received[0].resource_spans
    names = {item.key: item.value.string_value for item in resource.resource.attributes}
    (scope,) = resource.scope_spans
    assert names["service.name"] == "hlm-retrieval"
    assert {span.name for span in scope.spans} == {"retrieve", "tokenize", "queue", "encode", "search"}
    assert {span.trace_id.hex() for span in scope.spans} == {TRACE}


def test_it_is_off_by_default():
    assert open_tracer(TracingSettings(), Metrics()) is None


def test_without_the_packages_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "service.spans", None)
    with pytest.raises(StartupError, match=r"pip install 'hlm-retrieval\[otel\]'"):
        open_tracer(TracingSettings(otlp_endpoint="http://127.0.0.1:4318"), Metrics())
