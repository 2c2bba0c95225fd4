"""What a real server says about itself: logs, request log, traces, and health while something in it is broken."""

import itertools
import json
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.e2e.conftest import Server, hlm
from tests.waiting import wait_until

pytestmark = pytest.mark.e2e

Start = Callable[..., Server]
MARKER = "zqxjmarker"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"

BROKEN_ENCODER = """
import os, pathlib, time
from service.encoder import Encoder
encode, broken = Encoder.encode, pathlib.Path(os.environ["BROKEN"])
def encode_or_break(self, token_ids):
    {fault}
    return encode(self, token_ids)
Encoder.encode = encode_or_break
"""
HANG = BROKEN_ENCODER.format(fault="while broken.exists(): time.sleep(0.01)")
DIE = BROKEN_ENCODER.format(fault="if broken.exists(): broken.unlink(); raise SystemExit")
NONSENSE = BROKEN_ENCODER.format(fault="if broken.exists(): return encode(self, token_ids) * float('nan')")
BROKEN_STABLE = """
import os, pathlib
from index.load import FrozenIndex
search, broken = FrozenIndex.search, pathlib.Path(os.environ["BROKEN"])
def search_or_break(self, *args, **options):
    if broken.exists() and self.manifest.ad_count > 3:
        raise OSError
    return search(self, *args, **options)
FrozenIndex.search = search_or_break
"""
"""Breaks all indexes but the small one of a canary."""
QUOTE = """
from service.encoder import Encoder
tokenize, encode = Encoder.tokenize, Encoder.encode
def tokenize_or_quote(self, query):
    if "quote" in query:
        raise KeyError(query)
    return tokenize(self, query)
def encode_or_quote(self, token_ids):
    if max(map(len, token_ids)) > 30:
        raise ValueError(f"cannot encode {MARKER}")
    return encode(self, token_ids)
Encoder.tokenize, Encoder.encode = tokenize_or_quote, encode_or_quote
""".replace("{MARKER}", MARKER)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """What breaks a server that was started with one of the faults above, while this file exists."""
    return tmp_path / "broken"


def status(server: Server, path: str) -> int:
    return server.client.get(path).status_code


def not_ready(server: Server) -> str:
    """The reasons, empty while it is ready."""
    answer = server.client.get("/health/ready")
    return answer.text if answer.status_code == 503 else ""


def ask_and_leave(server: Server) -> None:
    with suppress(httpx.HTTPError):
        server.retrieve("drill", timeout_ms=200)


def test_a_hanging_worker_is_not_ready_and_ready_again_when_the_engine_answers(start: Start, broken: Path):
    server = start(fault=HANG, BROKEN=str(broken), HLM_BATCHING__WORKERS="2", HLM_HEALTH__WORKER_STALL_MS="300")
    assert not_ready(server) == ""
    broken.touch()
    ask_and_leave(server)
    wait_until(lambda: not_ready(server) != "")
    assert server.metric("hlm_worker_stalls_total") >= 1
    broken.unlink()
    wait_until(lambda: not_ready(server) == "")
    assert server.retrieve("drill").status_code == 200
    assert server.stop(signal.SIGINT) == 0
    stalls = [json.loads(line) for line in server.stderr.splitlines() if "stalled: batch-worker-" in line]
    assert any("encode_or_break" in frame for frames in stalls[0]["stacks"].values() for frame in frames)


def test_an_engine_that_hangs_for_good_is_not_live_any_more(start: Start, broken: Path):
    server = start(fault=HANG, BROKEN=str(broken), HLM_BATCHING__WORKERS="2", HLM_HEALTH__WORKER_STALL_MS="300")
    assert status(server, "/health/live") == 200
    broken.touch()
    wait_until(lambda: status(server, "/health/live") == 503)
    assert "a probe of the engine has not come back" in not_ready(server)
    broken.unlink()
    wait_until(lambda: status(server, "/health/live") == 200 and not_ready(server) == "")


def test_a_dead_worker_is_replaced(start: Start, broken: Path):
    server = start(fault=DIE, BROKEN=str(broken), HLM_BATCHING__WORKERS="2")
    broken.touch()
    ask_and_leave(server)
    wait_until(lambda: server.metric("hlm_worker_restarts_total") == 1)
    wait_until(lambda: not_ready(server) == "")
    assert server.metric('hlm_workers{state="dead"}') == 0
    assert server.retrieve("drill").status_code == 200


def test_an_idle_engine_that_gives_nonsense_is_not_ready_but_live(start: Start, broken: Path):
    server = start(fault=NONSENSE, BROKEN=str(broken), HLM_BATCHING__WORKERS="2")
    broken.touch()
    wait_until(lambda: not_ready(server) != "")
    assert not_ready(server) == (
        "a probe of the engine failed: the encoder gives an embedding of norm nan where 1 was expected\n"
    )
    assert status(server, "/health/live") == 200
    broken.unlink()
    wait_until(lambda: not_ready(server) == "")


def test_a_canary_that_answers_does_not_prove_the_release_beside_it(start: Start, broken: Path, canary: dict[str, str]):
    server = start(fault=BROKEN_STABLE, BROKEN=str(broken), **canary)
    numbers = itertools.count()

    def not_ready_while_the_canary_answers() -> str:
        body = {"query": f"shoe {next(numbers)}", "timeout_ms": 10_000}
        answer = server.client.post("/retrieve", json=body, headers={"X-HLM-Release": "canary"})
        assert (answer.status_code, answer.json()["release"]) == (200, "canary")
        return not_ready(server)

    broken.touch()
    wait_until(lambda: not_ready_while_the_canary_answers() != "")
    assert not_ready(server) == "a probe of the engine failed: OSError\n"


def test_every_log_line_is_json_and_none_has_a_query_whatever_is_wrong_with_it(start: Start):
    server = start(fault=QUOTE, HLM_BATCHING__WORKERS="2", HLM_SERVER__LOG_LEVEL="debug")
    post = server.client.post
    answers = [
        server.retrieve(MARKER),
        server.retrieve(f"{MARKER} quote"),
        server.retrieve(f"{MARKER} " * 40),
        post("/retrieve", json={"query": f"{MARKER}\x00"}),
        post("/retrieve", json={"query": "drill", MARKER: 1}),
        post("/retrieve", json={"query": [MARKER]}),
        post("/retrieve", json={"query": "drill", "request_id": f"{MARKER} with a space"}),
        post("/retrieve", content=b'{"query": "' + MARKER.encode() + b"\xff"),
        post("/retrieve", content=b'{"query": "' + MARKER.encode()),
        post("/retrieve", content=iter([b'{"query": ', b'"%s"}' % MARKER.encode()])),
        server.retrieve(MARKER, timeout_ms=1),
        server.client.get("/retrieve", params={"query": MARKER}),
        server.client.get(f"/{MARKER}"),
    ]
    assert [answer.status_code for answer in answers[:9]] == [200, 500, 500, 422, 422, 422, 422, 400, 400]
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(f"{MARKER} / HTTP/9\r\n{MARKER}\r\n\r\n".encode())
        assert b" 400 " in connection.recv(65_536)
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(b"POST /retrieve HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\n\r\n" + MARKER.encode())
    assert MARKER not in server.client.get("/metrics").text
    assert server.stop(signal.SIGINT) == 0
    records = [json.loads(line) for line in server.stderr.splitlines()]
    assert any("KeyError" in record.get("exception", "") for record in records)
    assert any("ValueError" in record.get("exception", "") for record in records)
    assert MARKER not in server.stderr


def test_the_request_log_has_what_was_answered_and_no_text(start: Start, tmp_path: Path):
    log = tmp_path / "log"
    server = start(
        HLM_REQUEST_LOG__SAMPLE_SHARE="1", HLM_REQUEST_LOG__PATH=str(log), HLM_REQUEST_LOG_KEY="0123456789abcdef"
    )
    answers = [
        server.retrieve(query, top_k=3, request_id=f"r-{number}").json()
        for number, query in enumerate((f"{MARKER} drill", f"{MARKER}  DRILL", "saw"))
    ]
    server.retrieve(MARKER, request_id="r-secret", no_log=True)
    server.retrieve("", request_id="r-refused")
    assert server.stop(signal.SIGINT) == 0
    text = "".join(path.read_text() for path in log.iterdir())
    lines = {line["request_id"]: line for line in map(json.loads, text.splitlines())}
    assert set(lines) == {"r-0", "r-1", "r-2"}
    for answer in answers:
        line = lines[answer["request_id"]]
        assert line["ad_ids"] == [ad["ad_id"] for ad in answer["ads"]]
        assert line["scores"] == [ad["score"] for ad in answer["ads"]]
        assert line["model_version"] == answer["model_version"]
    assert lines["r-0"]["query_hash"] == lines["r-1"]["query_hash"] != lines["r-2"]["query_hash"]
    assert MARKER not in text
    assert "0123456789abcdef" not in text


def test_a_request_log_that_cannot_be_written_is_one_sentence(encoder: Path, sample_index: Path, tmp_path: Path):
    (tmp_path / "file").touch()
    config = tmp_path / "serve.yaml"
    config.write_text(f"request_log: {{sample_share: 0.1, path: {tmp_path / 'file'}}}\n")
    release = ("--name", "x", "--encoder", encoder, "--index", sample_index)
    result = hlm("serve", "--config", config, *release, "--port", "0", check=False)
    assert result.returncode == 1
    assert f"error: request_log.path {tmp_path / 'file'}: cannot be written to" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.fixture
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """A collector's address, and what it was sent."""
    received: list[ExportTraceServiceRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"]))))
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


def test_a_request_that_its_caller_traces_arrives_at_the_collector_when_the_service_ends(
    start: Start, collector: tuple[str, list[ExportTraceServiceRequest]]
):
    address, received = collector
    server = start(extras=True, HLM_TRACING__OTLP_ENDPOINT=address, HLM_TRACING__SAMPLE_SHARE="0")
    body = {"query": MARKER, "timeout_ms": 10_000, "request_id": "r-traced"}
    headers = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
    assert server.client.post("/retrieve", json=body, headers=headers).status_code == 200
    assert server.client.post("/retrieve", content=b"{", headers=headers).status_code == 400
    assert server.retrieve("not traced").status_code == 200
    assert server.stop(signal.SIGINT) == 0
    spans = [span for sent in received for scope in sent.resource_spans[0].scope_spans for span in scope.spans]
    requests = [span for span in spans if span.name == "retrieve"]
    outcomes = {
        attribute.value.string_value
        for span in requests
        for attribute in span.attributes
        if attribute.key == "hlm.outcome"
    }
    assert outcomes == {"ok", "invalid_json"}
    assert {(span.trace_id.hex(), span.parent_span_id.hex()) for span in requests} == {(TRACE, SPAN)}
    assert {span.name for span in spans} == {"retrieve", "tokenize", "queue", "encode", "search"}
    assert MARKER not in str(received)
