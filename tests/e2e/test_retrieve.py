"""A query in, the right ads out, over HTTP, with the real encoder."""

import gzip
import json
import re
import socket
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from index.ads import FIELD_NAMES, AdTable
from service.encoder import Encoder
from service.schemas import RetrieveResponse
from tests.e2e.conftest import Server
from tests.e2e.malformed import MALFORMED

pytestmark = pytest.mark.e2e

QUERIES = ["cordless drill 18v", "running shoes women", "wireless mouse", "coffee machine", "garden hose 50 ft"]


@pytest.mark.parametrize(
    ("query", "word"),
    [("cordless drill", "drill"), ("wireless mouse", "mouse"), ("kaffeemaschine", "kaffee")],
    ids=["drill", "mouse", "another language"],
)
def test_the_first_ad_is_what_was_asked_for(server: Server, query: str, word: str):
    ads = server.retrieve(query, top_k=3, fields=["title"]).json()["ads"]
    assert word in ads[0]["title"].lower()


@pytest.mark.parametrize("query", QUERIES)
def test_the_answer_is_that_of_exact_search_on_the_same_embeddings(
    server: Server, encoder: Path, sample_feed: Path, sample_index: Path, query: str
):
    model, _ = Encoder.load(encoder)
    embedding = model.encode([model.tokenize(query)])[0]
    scores = np.load(next(sample_index.rglob("vectors.npy"))) @ embedding
    ad_ids = AdTable.load(sample_index / "ads", len(scores)).ad_ids
    feed = map(json.loads, gzip.decompress(sample_feed.read_bytes()).splitlines())
    active = {ad["ad_id"] for ad in feed if ad["status"] == "active"}
    best = [row for row in np.argsort(-scores) if ad_ids[row] in active][:10]
    answer = server.retrieve(query, top_k=10).json()
    assert len({ad["ad_id"] for ad in answer["ads"]} & {ad_ids[row] for row in best}) >= 9
    assert answer["ads"][0]["score"] == pytest.approx(float(scores[best[0]]), abs=1e-4)


def test_an_answer_has_the_documented_form(server: Server):
    body = server.retrieve("cordless drill", top_k=20, request_id="r-1", fields=list(FIELD_NAMES)).json()
    answer = RetrieveResponse.model_validate(body)
    assert answer.request_id == "r-1"
    assert answer.release == "samples"
    scores = [ad.score for ad in answer.ads]
    assert scores == sorted(scores, reverse=True)
    assert len({ad.ad_id for ad in answer.ads}) == 20
    assert set(body["ads"][0]) == {"ad_id", "score", *FIELD_NAMES}
    assert answer.coverage.complete
    assert 0 < answer.timings_ms.encode <= answer.timings_ms.total


def test_asking_for_more_ads_than_there_are_says_so(start: Callable[..., Server], three_shoes: Path):
    answer = start("--index", three_shoes).retrieve("shoe", top_k=10).json()
    assert {ad["ad_id"] for ad in answer["ads"]} == {"a0", "a1", "a2"}
    assert answer["coverage"] == {"complete": False, "reason": "index_smaller_than_top_k", "degraded": []}


def test_concurrent_callers_each_get_their_own_answer(server: Server):
    """Batched with others, a query keeps its ads; int8 scales span the batch, so scores may differ a little."""
    alone = {query: server.retrieve(query, top_k=10).json() for query in QUERIES}
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda query: (query, server.retrieve(query, top_k=10).json()), QUERIES * 40))
    for query, answer in together:
        assert answer["ads"][0]["score"] == pytest.approx(alone[query]["ads"][0]["score"], abs=0.05)
        assert len({ad["ad_id"] for ad in answer["ads"]} & {ad["ad_id"] for ad in alone[query]["ads"]}) >= 6


def test_a_query_that_was_asked_before_is_not_encoded_again(server: Server):
    hits = 'hlm_cache_lookups_total{cache="embedding",result="hit"}'
    first = server.retrieve("hedge trimmer, quiet", top_k=10).json()
    before = server.metric(hits), server.metric("hlm_batch_size_count")
    again = server.retrieve("Hedge  TRIMMER,   quiet", top_k=10).json()  # the tokenizer sees no difference
    assert (first["cached"], again["cached"]) == (False, True)
    assert again["ads"] == first["ads"]
    assert (server.metric(hits), server.metric("hlm_batch_size_count")) == (before[0] + 1, before[1])
    assert server.metric("hlm_cache_entries") >= 1


def test_a_whole_result_is_used_again_where_that_is_wanted(start: Callable[..., Server]):
    server = start(HLM_CACHE__RESULT_TTL_MS="1000")
    first = server.retrieve("drill", top_k=10, fields=["title"]).json()
    later = (server.retrieve("drill", top_k=10, fields=["bid"]).json() for _ in range(20))
    again = next(answer for answer in later if answer["timings_ms"]["search"] == 0)
    assert (first["cached"], again["cached"]) == (False, True)
    assert [ad["ad_id"] for ad in again["ads"]] == [ad["ad_id"] for ad in first["ads"]]
    assert set(again["ads"][0]) == {"ad_id", "score", "bid"}
    assert again["timings_ms"]["encode"] == 0
    assert server.retrieve("drill", top_k=5).json()["cached"] is True  # its embedding
    assert server.metric('hlm_cache_lookups_total{cache="result",result="hit"}') == 1


def test_all_of_an_answer_comes_from_one_release(start: Callable[..., Server], canary: dict[str, str]):
    """Half of the requests go to a canary that has other ads; like queries of both are asked at once."""
    server = start(**canary | {"HLM_CANARY__SHARE": "0.5"}, HLM_BATCHING__WORKERS="1")
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda query: server.retrieve(query, top_k=3).json(), QUERIES * 40))
    made = defaultdict(set)
    for answer in answers:
        ads = {ad["ad_id"] for ad in answer["ads"]}
        assert (answer["release"] == "canary") == (ads == {"a0", "a1", "a2"})
        made[answer["release"]].add((answer["model_version"], answer["index_version"]))
    assert {release: len(versions) for release, versions in made.items()} == {"test": 1, "canary": 1}
    assert made["test"] != made["canary"]


def test_malformed_bodies_are_refused_one_by_one_and_leave_good_requests_alone(server: Server):
    assert len(MALFORMED) >= 200
    expected = server.retrieve("cordless drill 18v", top_k=10).json()["ads"]
    wrong = []
    for name, body, statuses in MALFORMED:
        answer = server.client.post("/retrieve", content=body, headers={"Content-Type": "application/json"})
        allowed = statuses if isinstance(statuses, tuple) else (statuses,)
        problem = answer.json()
        if answer.status_code not in allowed or answer.headers["content-type"] != "application/problem+json":
            wrong.append((name, answer.status_code, answer.text[:200]))
        assert {"type", "title", "status", "detail"} <= set(problem), name
        assert problem["status"] == answer.status_code, name
        assert server.retrieve("cordless drill 18v", top_k=10).json()["ads"] == expected, name
    assert wrong == []


def test_every_wrong_field_is_named(server: Server):
    answer = server.client.post("/retrieve", json={"query": " ", "top_k": 0, "colour": "red"})
    assert answer.status_code == 422
    assert "request_id" not in answer.json()
    assert Counter(error["field"] for error in answer.json()["errors"]) == Counter(["query", "top_k", "colour"])


@pytest.mark.parametrize(
    ("method", "path", "status", "problem"),
    [("GET", "/retrieve", 405, "method_not_allowed"), ("GET", "/nowhere", 404, "not_found")],
)
def test_wrong_paths_are_problem_documents_too(server: Server, method: str, path: str, status: int, problem: str):
    answer = server.client.request(method, path)
    assert (answer.status_code, answer.json()["type"]) == (status, problem)
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_chunked_body_is_cut_off_at_the_limit(server: Server):
    """Without Content-Length the size shows only while reading."""
    answer = server.client.post("/retrieve", content=(b" " * 10_000 for _ in range(10)))
    assert answer.status_code == 413


def test_health_info_metrics_and_docs_answer(server: Server):
    for path in ("/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready", "/docs"):
        assert server.client.get(path).status_code == 200, path
    info = server.client.get("/info").json()
    assert info["ready"] is True
    assert info["release"]["name"] == "samples"
    assert info["release"]["ann_recall"]["value"] >= 0.97
    schema = server.client.get("/openapi.json").json()
    assert "503" in schema["paths"]["/retrieve"]["post"]["responses"]


def test_metrics_count_what_happened(server: Server):
    ok, invalid = 'hlm_requests_total{outcome="ok"}', 'hlm_requests_total{outcome="invalid_request"}'
    before = server.metric(ok), server.metric(invalid)
    for _ in range(3):
        server.retrieve("drill")
    server.retrieve("", top_k=3)
    assert (server.metric(ok), server.metric(invalid)) == (before[0] + 3, before[1] + 1)
    assert server.metric('hlm_stage_duration_seconds_count{stage="encode"}') == server.metric(ok)
    assert server.metric("hlm_ready") == 1


def converse(server: Server, request: bytes) -> bytes:
    """Send bytes and read until the server closes the connection."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65_536), b""))


BODY = b'{"query": "drill", "top_k": 1, "timeout_ms": 10000}'


def post(*headers: bytes, body: bytes = BODY) -> bytes:
    lines = (b"POST /retrieve HTTP/1.1", b"Host: x", b"Content-Length: %d" % len(body), *headers)
    return b"\r\n".join((*lines, b"", body))


def test_the_offer_of_http_2_that_javas_client_makes_is_ignored(server: Server):
    upgrade = (b"Upgrade: h2c", b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA")
    answer = converse(server, post(*upgrade, b"Connection: Upgrade, HTTP2-Settings") + post(b"Connection: close"))
    assert answer.count(b"HTTP/1.1 200 OK") == 2


def test_pipelined_requests_are_answered_in_order(server: Server):
    ids = [b"a", b"b", b"c"]
    bodies = [BODY[:-1] + b', "request_id": "%s"}' % name for name in ids]
    first, second = (post(body=body) for body in bodies[:2])
    answer = converse(server, first + second + post(b"Connection: close", body=bodies[2]))
    assert re.findall(rb'"request_id":"(.)"', answer) == ids


def test_a_refused_body_ends_the_connection(server: Server):
    """What is announced is never read, so nothing can follow it."""
    answer = converse(server, post(b"Expect: 100-continue", body=b" " * 100_000)[:200])
    assert answer.startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("length", [b"+5", b"", b"-1", b"5, 6"], ids=["plus", "empty", "negative", "two"])
def test_what_is_not_http_is_a_problem_document(server: Server, length: bytes):
    answer = converse(server, b"POST /retrieve HTTP/1.1\r\nHost: x\r\nContent-Length: " + length + b"\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert json.loads(body)["type"] == "invalid_http"


def test_health_answers_head_requests(server: Server):
    assert server.client.head("/health/ready").status_code == 200
    assert server.client.head("/health/live").status_code == 200


def test_thousands_of_wrong_fields_make_a_short_document(server: Server):
    answer = server.client.post("/retrieve", json={"query": "drill"} | {f"unknown{i}": 1 for i in range(3_000)})
    assert answer.status_code == 422
    assert len(answer.json()["errors"]) == 20
    assert "and 2980 more" in answer.json()["detail"]


def test_a_query_that_normalisation_makes_long_is_refused(server: Server):
    """U+FDFA becomes eighteen characters."""
    assert server.retrieve("\ufdfa" * 29).status_code == 422
    assert server.retrieve("\ufdfa" * 28).status_code == 200


def test_an_endless_header_is_refused(server: Server):
    request = b"POST /retrieve HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 70_000
    assert converse(server, request).startswith(b"HTTP/1.1 400")


def test_an_answer_has_ads_that_pass_the_filters_alone_and_says_when_they_leave_too_few(
    server: Server, sample_feed: Path
):
    feed = {ad["ad_id"]: ad for ad in map(json.loads, gzip.decompress(sample_feed.read_bytes()).splitlines())}
    best = server.retrieve("cordless drill", top_k=1, fields=["advertiser_id"]).json()["ads"][0]["advertiser_id"]
    filters = {"market": "us", "device": "mobile", "min_bid": 0.3, "exclude_advertisers": [best]}
    answer = server.retrieve("cordless drill", top_k=1000, filters=filters).json()
    expected = {
        ad_id
        for ad_id, ad in feed.items()
        if ad["status"] == "active"
        and ad["market"] == "us"
        and "mobile" in ad["devices"]
        and ad["bid"] >= 0.3
        and ad["advertiser_id"] != best
    }
    assert 0 < len(expected) < 1000
    assert {ad["ad_id"] for ad in answer["ads"]} == expected
    assert answer["coverage"] == {"complete": False, "reason": "filtered", "degraded": []}
    nothing = server.retrieve("cordless drill", filters={"market": "fr", "language": "ja"}).json()
    assert nothing["ads"] == []
    assert nothing["coverage"]["reason"] == "filtered"
