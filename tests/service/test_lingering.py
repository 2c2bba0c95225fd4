"""Answers that come before the end of a request reach clients that go on sending."""

import socket
from collections.abc import Iterator

import pytest

from tests.service.listening import Listening, answers_in, listening, read_all
from tests.waiting import wait_until

LENGTH = 30_000_000
"""More than the buffers of a loopback connection hold."""
HEAD = b"POST /retrieve HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % LENGTH


@pytest.fixture
def server() -> Iterator[Listening]:
    with listening() as server:
        yield server


def test_a_client_that_sends_all_before_it_reads_gets_the_refusal(server: Listening):
    [answer] = answers_in(server.converse(HEAD + b" " * LENGTH))
    assert (answer.status, answer.document["type"]) == (413, "body_too_large")


def test_so_does_one_that_sends_what_is_not_http(server: Listening):
    [answer] = answers_in(server.converse(b"POST /retrieve HTTP/1.1\r\nContent-Length: x\r\n\r\n" + b" " * LENGTH))
    assert (answer.status, answer.document["type"]) == (400, "invalid_http")


def test_what_follows_the_refused_body_is_no_request(server: Listening):
    body = b'{"query": "drill"}'
    request = b"POST /retrieve HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    assert len(answers_in(server.converse(HEAD + request + request))) == 1
    assert server.service.asked == []


def test_a_client_that_never_stops_is_cut_off(server: Listening, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("service.lingering.LINGER_S", 0.1)
    with server.connect() as connection:
        connection.sendall(HEAD)
        [answer] = answers_in(read_all(connection))
        assert answer.status == 413
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            _send_for_ever(connection)


def test_one_that_has_read_its_answer_is_closed_at_once(server: Listening):
    with server.connect() as connection:
        connection.sendall(HEAD)
        assert read_all(connection)
        connection.shutdown(socket.SHUT_WR)
        wait_until(lambda: not server.server.server_state.connections)


def _send_for_ever(connection: socket.socket) -> None:
    while True:
        connection.sendall(b" ")
