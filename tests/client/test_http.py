import json
import socket

import pytest

from client.errors import AnswerError, ClientError
from client.http import RetrieveClient
from tests.client.standin import Reply, answer, problem, serve


def test_a_request_carries_what_was_asked_and_nothing_else():
    with serve(lambda _: answer(["a"])) as service, RetrieveClient(service.url + "/") as client:
        client.retrieve("drill\u00e9", top_k=3)
        client.retrieve("saw", top_k=5, timeout_ms=70, fields=["title"])
    assert service.requests == [
        {"query": "drill\u00e9", "top_k": 3, "fields": []},
        {"query": "saw", "top_k": 5, "fields": ["title"], "timeout_ms": 70},
    ]


def test_an_answer_comes_parsed_and_as_its_bytes():
    reply = answer(["a", "b"], title=["Drill", None], advertiser_id=["bosch", "x"])
    with serve(lambda _: reply) as service, RetrieveClient(service.url) as client:
        parsed, body = client.retrieve("drill", top_k=2)
    assert body == reply.body
    assert [(ad.ad_id, ad.title, ad.advertiser_id) for ad in parsed.ads] == [("a", "Drill", "bosch"), ("b", None, "x")]
    assert parsed.coverage.reason == "index_smaller_than_top_k"


@pytest.mark.parametrize(
    ("reply", "reason", "message"),
    [
        pytest.param(problem(503, "overloaded", "256 are queued"), "503 overloaded", "256 are queued", id="problem"),
        pytest.param(Reply(502, b"<h1>", "text/html"), "502 Bad Gateway", "no problem document", id="a proxy's page"),
        pytest.param(Reply(404, b'"what"'), "404 Not Found", "no problem document", id="JSON, but no object"),
        pytest.param(Reply(500, b'{"type":"about:blank"}'), "500 Internal Server Error", "", id="blank type"),
    ],
)
def test_any_status_but_200_becomes_one_sentence_and_a_countable_reason(reply: Reply, reason: str, message: str):
    with (
        serve(lambda _: reply) as service,
        RetrieveClient(service.url) as client,
        pytest.raises(AnswerError) as caught,
    ):
        client.retrieve("drill", top_k=1)
    assert caught.value.reason == reason
    assert str(caught.value).startswith(f"{service.url}/retrieve: answered {reason}: ")
    assert message in str(caught.value)


def _without(name: str) -> bytes:
    document = json.loads(answer(["a"]).body)
    del document[name]
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("body", "what"),
    [
        pytest.param(b"<html>", "body", id="HTML"),
        pytest.param(b"[]", "body", id="a list"),
        pytest.param(_without("index_version"), "index_version", id="no index version"),
        pytest.param(_without("ads"), "ads", id="no ads"),
    ],
)
def test_a_200_of_some_other_server_is_refused_and_says_what_is_wrong(body: bytes, what: str):
    with (
        serve(lambda _: Reply(200, body)) as service,
        RetrieveClient(service.url) as client,
        pytest.raises(ClientError, match=f"answered 200, but not as this service does: {what}: "),
    ):
        client.retrieve("drill", top_k=1)


def test_nobody_listening_is_one_sentence_with_the_address():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound and not listening: nobody else can take the port meanwhile
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        with RetrieveClient(url) as client, pytest.raises(ClientError, match=f"{url}: cannot connect .* running there"):
            client.retrieve("drill", top_k=1)


def test_a_service_that_takes_too_long_is_one_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("client.http.CLIENT_TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with RetrieveClient(url) as client, pytest.raises(ClientError, match=r"no answer within 0\.05 s"):
            client.retrieve("drill", top_k=1)


def test_a_connection_that_breaks_off_is_one_sentence():
    def hang_up(_: object) -> Reply:
        raise ConnectionAbortedError

    with (
        serve(hang_up) as service,
        RetrieveClient(service.url) as client,
        pytest.raises(ClientError, match="the conversation broke off"),
    ):
        client.retrieve("drill", top_k=1)


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://127.0.0.1", "http://[::1", "", "http://"])
def test_what_is_no_address_is_refused_with_an_example(url: str):
    with RetrieveClient(url) as client, pytest.raises(ClientError, match="expected one such as http://"):
        client.retrieve("drill", top_k=1)


def test_a_query_that_no_encoding_can_carry_is_refused_before_it_is_sent():
    with RetrieveClient("http://127.0.0.1:9") as client, pytest.raises(ClientError, match="not valid Unicode"):
        client.retrieve("drill \udcff", top_k=1)
