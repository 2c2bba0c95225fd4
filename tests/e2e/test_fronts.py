"""Front processes before one engine, as real processes: the same answers, exact counts, and either side killed."""

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.conftest import ROOT, Server
from tests.e2e.malformed import MALFORMED

FRONTS = {"HLM_SERVER__FRONT_PROCESSES": "2", "HLM_SERVER__DRAIN_GRACE_MS": "300"}
QUERIES = ("cordless drill 18v", "running shoes", "  Wireless   MOUSE ", "größe 42", "[SEP] kettle")
PATIENCE_S = 30
STALLED = """
import threading, time
from service import pipeline
encode = pipeline._embed
def slow(queries, cache):
    time.sleep(0.8 if any("slow" in query.wanted.query for query in queries) else 0)
    return encode(queries, cache)
pipeline._embed = slow
"""
"""Has the engine take long over a query that says so."""

Start = Callable[..., Server]


def fronts_of(server: Server) -> list[psutil.Process]:
    children = psutil.Process(server.process.pid).children()
    return [child for child in children if "service.front" in child.cmdline()]


def eventually(what: Callable[[], bool]) -> None:
    ends = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < ends
        time.sleep(0.02)


def ask(url: str, body: bytes, *fields: str) -> socket.socket:
    """A connection with one request sent."""
    host, port = url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=PATIENCE_S)
    head = "\r\n".join((f"Content-Length: {len(body)}", *fields))
    connection.sendall(f"POST /retrieve HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode() + body)
    return connection


def read(connection: socket.socket) -> bytes:
    """All of the answer whose length the header says; empty where the connection was closed."""
    data = b""
    while b"\r\n\r\n" not in data or len(data.partition(b"\r\n\r\n")[2]) < length_of(data):
        part = connection.recv(65_536)
        if not part:
            return data
        data += part
    return data


def length_of(data: bytes) -> int:
    [line] = [line for line in data.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    return int(line.split(b":")[1])


@pytest.fixture(scope="module")
def fronted(encoder: Path, sample_index: Path) -> Iterator[Server]:
    server = Server("--name", "samples", "--encoder", encoder, "--index", sample_index, env=FRONTS)
    yield server
    assert server.stop(signal.SIGINT) == 0


def without_times(answer: httpx.Response) -> dict[str, object]:
    document: dict[str, object] = answer.json()
    for changing in ("timings_ms", "request_id", "cached"):
        document.pop(changing, None)
    return document


@pytest.mark.parametrize("query", QUERIES)
def test_answers_are_those_of_one_process(server: Server, fronted: Server, query: str):
    for fields in ({}, {"top_k": 7, "fields": ["title", "attrs"], "filters": {"market": "US", "device": "phone"}}):
        one, many = server.retrieve(query, **fields), fronted.retrieve(query, **fields)
        assert many.status_code == 200
        assert without_times(many) == without_times(one)


def test_a_request_id_comes_back(fronted: Server):
    assert fronted.retrieve("mouse", request_id="mine").json()["request_id"] == "mine"


@pytest.mark.parametrize("body", [body for _, body, _ in MALFORMED][::7])
def test_refusals_are_those_of_one_process(server: Server, fronted: Server, body: bytes):
    one, many = (each.client.post("/retrieve", content=body) for each in (server, fronted))
    assert many.status_code >= 400
    assert (many.status_code, many.json()) == (one.status_code, one.json())
    assert many.headers["content-type"] == one.headers["content-type"]


def test_other_paths_and_other_ways_to_send_are_answered_on_the_same_connection(fronted: Server):
    with httpx.Client(base_url=fronted.url, timeout=PATIENCE_S) as client:
        body = json.dumps({"query": "mouse", "timeout_ms": 10_000}).encode()
        plain = client.post("/retrieve", content=body)
        chunked = client.post("/retrieve", content=iter([body[:5], body[5:]]))
        assert plain.json()["ads"] == chunked.json()["ads"]
        assert client.get("/health/ready").text == "ready\n"
        assert client.get("/info").json()["release"]["name"] == "samples"
        assert client.post("/retrieve", content=body).json()["ads"] == plain.json()["ads"]
        assert client.get("/nothing").status_code == 404


def test_a_body_that_comes_late_and_requests_sent_at_once_are_answered_in_order(fronted: Server):
    first, second = (json.dumps({"query": query, "top_k": 1, "timeout_ms": 9_000}).encode() for query in ("a", "b"))
    with ask(fronted.url, first[:4], "X-Ignored: x") as _, ask(fronted.url, first) as connection:
        connection.sendall(b"POST /retrieve HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(second) + second)
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        stream = b""
        while not stream.endswith(b"live\n"):
            stream += connection.recv(65_536)
        assert stream.count(b"HTTP/1.1 200") == 3


def test_every_request_is_counted_once_in_one_place(start: Start):
    server = start(**FRONTS)
    bodies = [b'{"query": "mouse", "timeout_ms": 9000}', b"{", b'{"query": ""}'] * 20
    with contextlib.ExitStack() as stack:
        for body in bodies:
            read(stack.enter_context(ask(server.url, body)))
    counted = {
        outcome: server.metric(f'hlm_requests_total{{outcome="{outcome}"}}')
        for outcome in ("ok", "invalid_json", "invalid_request", "cancelled")
    }
    assert counted == {"ok": 20, "invalid_json": 20, "invalid_request": 20, "cancelled": 0}
    assert server.metric('hlm_stage_duration_seconds_count{stage="total"}') == 20
    assert server.metric("hlm_front_processes") == 2


def test_a_client_that_goes_away_is_counted_as_cancelled(start: Start):
    server = start(fault=STALLED, **FRONTS)
    with ask(server.url, b'{"query": "slow mouse", "timeout_ms": 9000}'):
        eventually(lambda: server.metric("hlm_running_batches") == 1)
    eventually(lambda: server.metric('hlm_requests_total{outcome="cancelled"}') == 1)


def test_a_front_process_that_is_killed_is_replaced_and_the_others_go_on(start: Start):
    server = start(**FRONTS)
    for round_number in (1, 2):
        fronts_of(server)[0].kill()
        for _ in range(20):
            with httpx.Client(base_url=server.url, timeout=PATIENCE_S) as client:
                assert client.post("/retrieve", json={"query": "mouse", "timeout_ms": 9_000}).status_code == 200
        eventually(lambda: server.metric("hlm_front_processes") == 2)
        assert server.metric("hlm_front_restarts_total") == round_number
    assert server.stop() == 0


def test_what_a_killed_front_process_had_asked_is_given_up(start: Start):
    server = start(fault=STALLED, **FRONTS | {"HLM_SERVER__FRONT_PROCESSES": "1"})
    with ask(server.url, b'{"query": "slow mouse", "timeout_ms": 9000}') as connection:
        time.sleep(0.2)  # the engine is at it, or will be: either way the request is given up
        fronts_of(server)[0].kill()
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""
    eventually(lambda: server.metric('hlm_requests_total{outcome="cancelled"}') == 1)


def test_a_front_process_that_stands_still_is_replaced(start: Start):
    server = start(**FRONTS)
    stuck = fronts_of(server)[0]
    stuck.suspend()
    eventually(lambda: not stuck.is_running())
    eventually(lambda: len(fronts_of(server)) == 2)
    eventually(lambda: server.retrieve("mouse").status_code == 200)


def test_a_killed_engine_takes_its_front_processes_along_and_clients_are_told(start: Start):
    server = start(fault=STALLED, **FRONTS)
    fronts = fronts_of(server)
    with ask(server.url, b'{"query": "slow mouse", "timeout_ms": 9000}') as connection:
        time.sleep(0.2)
        server.process.kill()
        assert read(connection).startswith(b"HTTP/1.1 503 ")
        server.process.communicate(timeout=PATIENCE_S)  # its front processes hold its output too, and end
    eventually(lambda: not any(front.is_running() for front in fronts))
    port = int(server.url.rsplit(":", 1)[1])
    with socket.create_server(("127.0.0.1", port)):  # whoever restarts the service finds its address free
        pass


def test_an_engine_that_stands_still_does_not_hold_requests_beyond_their_budget(start: Start):
    server = start(**FRONTS)
    assert server.retrieve("mouse").status_code == 200
    server.process.send_signal(signal.SIGSTOP)
    try:
        with ask(server.url, b'{"query": "mouse", "timeout_ms": 100}') as connection:
            answer = read(connection)
    finally:
        server.process.send_signal(signal.SIGCONT)
    assert answer.startswith(b"HTTP/1.1 504 ")
    assert b"deadline_exceeded" in answer
    eventually(lambda: server.retrieve("mouse").status_code == 200)


def test_what_is_in_flight_is_answered_when_the_service_ends(start: Start):
    server = start(fault=STALLED, **FRONTS)
    with ask(server.url, b'{"query": "slow mouse", "timeout_ms": 9000}') as connection:
        eventually(lambda: server.metric("hlm_running_batches") == 1)
        code: list[int] = []
        stopping = threading.Thread(target=lambda: code.append(server.stop()))
        stopping.start()
        answer = read(connection)
        stopping.join()
    assert answer.startswith(b"HTTP/1.1 200")
    assert code == [0]


def test_a_swap_is_answered_by_the_new_encoder_whatever_tokenised_the_query(
    encoder: Path, three_shoes: Path, tmp_path: Path
):
    shorter = shutil.copytree(encoder, tmp_path / "shorter")
    manifest = json.loads((shorter / "manifest.json").read_text())
    manifest["model_version"] = "shorter"
    manifest["text"]["max_query_tokens"] = 24  # more than golden queries have
    (shorter / "manifest.json").write_text(json.dumps(manifest))
    cut = "red shoe " + "blue " * 20
    long = cut + "green " * 10
    config = tmp_path / "serve.yaml"
    settings = {
        "release": {"name": "one", "encoder": str(encoder), "index": str(three_shoes)},
    }
    config.write_text(json.dumps(settings))
    server = Server("--config", config, env=FRONTS)
    try:
        assert scores(server, long) != scores(server, cut)
        settings["release"] |= {"name": "two", "encoder": str(shorter)}
        config.write_text(json.dumps(settings))
        eventually(lambda: bool(server.retrieve("red").json()["release"] == "two"))
        assert scores(server, long) == scores(server, cut)
    finally:
        assert server.stop() == 0


def scores(server: Server, query: str) -> dict[str, float]:
    return {ad["ad_id"]: ad["score"] for ad in server.retrieve(query).json()["ads"]}


def test_a_front_process_that_cannot_start_is_named(start: Start):
    fault = "import sys, service.fronts\nservice.fronts.sys.executable = '/bin/false'"
    with pytest.raises(RuntimeError, match=r"a front process did not start \(exit code 1\)"):
        start(fault=fault, **FRONTS, GLIBC_TUNABLES="glibc.malloc.hugetlb=1")  # else the service starts itself again


def test_a_front_process_loads_neither_model_nor_index():
    code = "import sys, service.front; print([m for m in ('onnxruntime', 'hnswlib', 'fastapi') if m in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"
