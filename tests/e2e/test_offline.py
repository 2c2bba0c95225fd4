"""Many queries in one request, on a real server."""

import contextlib
import json
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from service.schemas import RetrieveResponse
from tests.e2e.conftest import Server
from tests.waiting import wait_until

pytestmark = pytest.mark.e2e

Start = Callable[..., Server]
QUERIES = ["cordless drill 18v", "running shoes women", "mouse", "coffee machine", "garden hose 50 ft", "lamp"]
MANY = [f"{query} {number}" for number in range(200) for query in QUERIES[:5]]
LONG: dict[str, Any] = {"queries": MANY, "top_k": 1000, "fields": ["title", "description", "landing_url"]}
"""A thousand lines of half a megabyte: more than lies ready in buffers, so that it lasts while nobody reads."""


def ask(server: Server, queries: list[Any], **fields: object) -> list[dict[str, Any]]:
    answer = server.client.post("/retrieve/batch", json={"queries": queries, **fields})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    return [json.loads(line) for line in answer.text.splitlines()]


@contextlib.contextmanager
def reading(server: Server, body: dict[str, Any]) -> Iterator[Iterator[str]]:
    """Lines of an answer, as they come."""
    with server.client.stream("POST", "/retrieve/batch", json=body) as answer:
        assert answer.status_code == 200
        yield answer.iter_lines()


def test_there_is_a_line_for_each_query_in_order_with_the_ads_of_retrieve(server: Server):
    queries = [QUERIES[number % len(QUERIES)] for number in range(150)]
    lines = ask(server, queries, top_k=10, fields=["title"])
    assert [line["position"] for line in lines] == list(range(150))
    alone = {query: server.retrieve(query, top_k=10, fields=["title"]).json() for query in QUERIES}
    for query, line in zip(queries, lines, strict=True):
        answer = RetrieveResponse.model_validate(line)
        expected = alone[query]
        assert answer.ads[0].score == pytest.approx(expected["ads"][0]["score"], abs=0.05)  # int8: batches matter
        assert len({ad.ad_id for ad in answer.ads} & {ad["ad_id"] for ad in expected["ads"]}) >= 6
        assert set(line["ads"][0]) == {"ad_id", "score", "title"}
        assert {key: line[key] for key in ("release", "model_version", "index_version")} == {
            key: expected[key] for key in ("release", "model_version", "index_version")
        }
        assert 0 < answer.timings_ms.encode < answer.timings_ms.total


def test_a_query_may_bring_its_request_id_and_a_wrong_one_harms_no_other(server: Server):
    queries: list[Any] = ["drill", {"query": "mouse", "request_id": "m-1"}, " ", 5, {"query": "x", "top_k": 3}, "lamp"]
    lines = ask(server, queries, top_k=2)
    assert [line["position"] for line in lines] == [0, 1, 2, 3, 4, 5]
    assert [line.get("status") for line in lines] == [None, None, 422, 422, 422, None]
    assert lines[1]["request_id"] == "m-1"
    assert {line["type"] for line in lines[2:5]} == {"invalid_request"}
    assert [line["errors"][0]["field"] for line in lines[2:5]] == ["query", "query", "top_k"]
    assert len(lines[5]["ads"]) == 2


def test_nothing_but_wrong_queries_is_an_answer_too(server: Server):
    assert [line["status"] for line in ask(server, ["", "\x00"])] == [422, 422]


@pytest.mark.parametrize(
    ("body", "status", "problem", "field"),
    [
        (b"nope", 400, "invalid_json", None),
        (b"[]", 422, "invalid_request", "body"),
        (b"{}", 422, "invalid_request", "queries"),
        (b'{"queries": []}', 422, "invalid_request", "queries"),
        (json.dumps({"queries": ["a"] * 1_001}).encode(), 422, "invalid_request", "queries"),
        (b'{"queries": "drill"}', 422, "invalid_request", "queries"),
        (b'{"queries": ["a"], "top_k": 1001}', 422, "invalid_request", "top_k"),
        (b'{"queries": ["a"], "fields": ["price"]}', 422, "invalid_request", "fields.0"),
        (b'{"queries": ["a"], "timeout_ms": 0}', 422, "invalid_request", "timeout_ms"),
        (b'{"queries": ["a"], "colour": "red"}', 422, "invalid_request", "colour"),
        (b" " * 2_100_000, 413, "body_too_large", None),
    ],
    ids=[
        *("not JSON", "a list", "nothing", "no query", "too many", "one string", "top_k", "field", "timeout"),
        *("unknown", "too large"),
    ],
)
def test_a_request_that_is_wrong_as_a_whole_is_refused_before_any_line(server, body, status, problem, field):
    answer = server.client.post("/retrieve/batch", content=body)
    assert (answer.status_code, answer.json()["type"]) == (status, problem)
    assert answer.headers["content-type"] == "application/problem+json"
    assert field is None or answer.json()["errors"][0]["field"] == field


def test_a_thousand_long_queries_fit_into_the_body(server: Server):
    lines = ask(server, ["ab " * 170] * 1_000, top_k=1, timeout_ms=1)
    assert len(lines) == 1_000


def test_lines_come_while_later_queries_are_still_to_be_answered_and_single_requests_pass_by(start: Start):
    server = start()
    with reading(server, LONG) as lines:
        assert json.loads(next(lines))["position"] == 0
        assert server.retrieve("drill").status_code == 200
        assert server.metric('hlm_offline_queries_total{outcome="ok"}') < len(MANY)


def test_more_requests_than_have_a_place_are_refused_with_retry_after(start: Start):
    server = start(HLM_LIMITS__MAX_BATCH_REQUESTS="1")
    with reading(server, LONG) as lines:
        next(lines)
        answer = server.client.post("/retrieve/batch", json={"queries": ["drill"]})
        assert (answer.status_code, answer.json()["type"]) == (503, "overloaded")
        assert int(answer.headers["retry-after"]) >= 1
    wait_until(lambda: server.client.post("/retrieve/batch", json={"queries": ["drill"]}).status_code == 200)
    for wrong in (b"nope", b"{}"):  # neither keeps its place
        server.client.post("/retrieve/batch", content=wrong)
    assert len(ask(server, ["drill"])) == 1


def test_who_sends_slowly_keeps_nobody_out(start: Start):
    server = start(HLM_LIMITS__MAX_BATCH_REQUESTS="1")
    host, port = server.url.removeprefix("http://").split(":")
    body = json.dumps({"queries": ["mouse"]}).encode()
    head = f"POST /retrieve/batch HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
    with socket.create_connection((host, int(port)), timeout=60) as slow:
        slow.sendall(head.encode() + b"Expect: 100-continue\r\n\r\n")
        assert slow.recv(65_536).startswith(b"HTTP/1.1 100 ")  # it is being read
        assert len(ask(server, ["drill"])) == 1
        wait_until(lambda: server.metric('hlm_offline_requests_total{outcome="ok"}') == 1)  # and its place is free
        slow.sendall(body)
        answer = b"".join(iter(lambda: slow.recv(65_536), b""))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'{"position":0,' in answer


def test_a_client_that_goes_away_stops_the_work(start: Start):
    server = start()
    with reading(server, LONG) as lines:
        next(lines)
    wait_until(lambda: server.metric('hlm_offline_requests_total{outcome="cancelled"}') == 1)
    assert server.metric('hlm_offline_queries_total{outcome="ok"}') < len(MANY)
    wait_until(lambda: server.metric("hlm_low_lane_queued_jobs") == 0)


def test_what_the_time_budget_does_not_reach_says_so_on_its_line(server: Server):
    lines = ask(server, MANY, timeout_ms=100)
    assert [line["position"] for line in lines] == list(range(len(MANY)))
    late = [line for line in lines if line.get("type") == "deadline_exceeded"]
    assert late
    assert late[-1]["position"] == len(MANY) - 1
    assert {line["status"] for line in late} == {504}
    assert all("ads" in line for line in lines if line not in late)


def test_a_drain_lets_the_lines_go_on_to_the_last(start: Start):
    server = start(HLM_SERVER__DRAIN_GRACE_MS="0", HLM_SERVER__SHUTDOWN_TIMEOUT_MS="60000")
    with reading(server, {"queries": MANY, "top_k": 1}) as lines:
        found = [next(lines)]
        server.process.send_signal(signal.SIGTERM)
        found += list(lines)
    assert [json.loads(line)["position"] for line in found] == list(range(len(MANY)))
    server.process.communicate(timeout=30)
    assert server.process.returncode == 0


def test_metrics_count_requests_and_queries_apart_from_single_ones(start: Start):
    server = start()
    ask(server, ["drill", "", "mouse"])
    with contextlib.suppress(httpx.HTTPError):
        server.client.post("/retrieve/batch", content=b"nope")
    assert server.metric('hlm_offline_requests_total{outcome="ok"}') == 1
    assert server.metric('hlm_offline_requests_total{outcome="invalid_json"}') == 1
    assert server.metric('hlm_offline_queries_total{outcome="ok"}') == 2
    assert server.metric('hlm_offline_queries_total{outcome="invalid_request"}') == 1
    assert server.metric('hlm_requests_total{outcome="ok"}') == 0
    assert server.metric("hlm_batch_size_count") == 0


def test_the_interface_page_of_the_server_describes_it(server: Server):
    operation = server.client.get("/openapi.json").json()["paths"]["/retrieve/batch"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert schema["properties"]["queries"]["maxItems"] == 1_000
    assert "$ref" not in json.dumps(operation["requestBody"])
    assert "application/x-ndjson" in operation["responses"]["200"]["content"]


def test_recall_is_measured_on_live_queries(start: Start):
    server = start(HLM_MONITOR__RECALL_SAMPLE_SHARE="1")
    for query in QUERIES:
        server.retrieve(query, top_k=100)
    server.retrieve("drill", top_k=10)
    wait_until(lambda: sampled(server, 10) == len(QUERIES) + 1)
    assert sampled(server, 100) == len(QUERIES)
    assert server.metric('hlm_ann_recall{k="100",release="test"}') >= 0.9


def sampled(server: Server, k: int) -> float:
    with contextlib.suppress(KeyError):
        return server.metric(f'hlm_ann_recall_samples_total{{k="{k}",release="test"}}')
    return 0
