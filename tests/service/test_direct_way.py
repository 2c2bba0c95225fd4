"""The direct way of a plain request, and that it cannot be told from the general one but by its speed."""

import contextlib
import random
import socket
from collections.abc import Iterator
from time import perf_counter

import pytest

from service import connection as connection_module
from service.connection import MAX_HELD_BYTES
from service.plain_request import MAX_PLAIN_HEADER_BYTES
from tests.service.listening import Listening, answers_in, is_open, listening, read_all, read_answers
from tests.waiting import wait_until

BODY = b'{"query":"drill"}'
GET = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
DRIP_S = 0.005
LAST = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def post(body: bytes = BODY, *fields: bytes, path: bytes = b"/retrieve", version: bytes = b"1.1") -> bytes:
    head = [b"POST %b HTTP/%b" % (path, version), b"Host: x", b"Content-Length: %d" % len(body), *fields]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def chunked(body: bytes, *fields: bytes) -> bytes:
    head = [b"POST /retrieve HTTP/1.1", b"Host: x", b"Transfer-Encoding: chunked", *fields]
    return b"\r\n".join(head) + b"\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


@pytest.fixture(scope="module")
def shared() -> Iterator[Listening]:
    with listening() as server:
        yield server


@pytest.fixture
def server(shared: Listening) -> Listening:
    """One server for all that leave it as it was; what it was asked is forgotten."""
    shared.service.asked.clear()
    shared.service.generally.clear()
    shared.service.ended.clear()
    return shared


# --- plain requests -------------------------------------------------------------------------------------------------


def test_a_plain_request_is_answered_without_the_framework(server: Listening):
    before = perf_counter()
    with server.connect() as connection:
        fields = (b"X-HLM-Caller: web", b"X-HLM-Release: canary", b"traceparent: 00-ab-cd-01")
        connection.sendall(post(BODY, *fields))
        [answer] = read_answers(connection, 1)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.document == {"size": len(BODY)}
    assert "date" in answer.headers
    [(body, origin)] = server.service.asked
    assert body == BODY
    assert (origin.caller, origin.release, origin.traceparent) == ("web", "canary", "00-ab-cd-01")
    assert before <= origin.arrived <= perf_counter()
    assert server.service.generally == []


def test_who_names_no_caller_is_known_by_the_address(server: Listening):
    with server.connect() as connection:
        connection.sendall(post() + chunked(BODY))
        read_answers(connection, 2)
    assert [origin.caller for _, origin in server.service.asked] == ["127.0.0.1"] * 2


def test_a_refusal_is_the_same_document_either_way(server: Listening):
    with server.connect() as connection:
        connection.sendall(post(b"overload") + chunked(b"overload"))
        direct, general = read_answers(connection, 2)
    assert server.service.generally == ["/retrieve"]
    assert direct == general
    assert (direct.status, direct.headers["retry-after"]) == (503, "2")
    assert direct.headers["x-hlm-predicted-wait-ms"] == "1500"
    assert direct.document["type"] == "overloaded"


def test_an_answer_is_the_same_either_way(server: Listening):
    with server.connect() as connection:
        connection.sendall(post() + chunked(BODY))
        direct, general = read_answers(connection, 2)
    assert direct == general


@pytest.mark.parametrize(
    "request_bytes",
    [
        post(b"{}", b"Connection: close"),
        post(b"{}", b"Expect: nothing"),
        post(b"{}", b"Upgrade: h2c", b"Connection: keep-alive, Upgrade"),
        post(b"{}", b"TE: trailers"),
        post(b"{}", path=b"/retrieve?x=1"),
        post(b"{}", path=b"http://x/retrieve"),
        post(b"{}", version=b"1.0"),
        post(b"{}", b"X-Long: " + b"x" * MAX_PLAIN_HEADER_BYTES),
        chunked(b"{}"),
        b"\r\n" + post(b"{}"),
    ],
    ids=[
        *("close", "expect", "upgrade", "te", "query string", "absolute", "HTTP/1.0", "long header", "chunked"),
        "empty line before",
    ],
)
def test_what_is_not_plain_goes_the_general_way_to_the_same_answer(server: Listening, request_bytes: bytes):
    answers = answers_in(server.converse(request_bytes + LAST))
    assert (answers[0].status, answers[0].document) == (200, {"size": 2})
    assert "/retrieve" in server.service.generally[0]


@pytest.mark.parametrize(
    ("request_bytes", "problem"),
    [
        (post(b"{}", b"Content-Length: 2"), "invalid_http"),
        (post(b"{}", b"X: y", b" folded"), "invalid_http"),
        (post(b"{}", b"X : y"), "invalid_http"),
        (post(b"{}", b"X: \0"), "invalid_http"),
        (post(b"{}", b"Transfer-Encoding: chunked"), "invalid_http"),
        (post(b"x" * 70_000), "body_too_large"),
        (b"POST /retrieve HTTP/1.1\r\nContent-Length: %b\r\n\r\n" % (b"0" * 5_000 + b"9" * 9), "body_too_large"),
    ],
    ids=["two lengths", "folded", "space before colon", "NUL", "two framings", "too large", "many digits"],
)
def test_what_is_refused_before_it_is_read_ends_the_connection(server: Listening, request_bytes: bytes, problem: str):
    with contextlib.suppress(ConnectionResetError):  # what the server left unread
        [answer] = answers_in(server.converse(request_bytes + post()))
        assert answer.document["type"] == problem
        assert answer.headers["connection"] == "close"
    assert server.service.asked == []


# --- in parts and in rows -------------------------------------------------------------------------------------------


def held_by(server: Listening) -> list[bytes]:
    """What each connection keeps until more has come."""
    return [vars(connection)["_held"] for connection in list(server.server.server_state.connections)]


def test_a_body_in_two_parts_is_put_together_and_its_time_counts_from_the_first(
    server: Listening, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(connection_module, "REST_TIMEOUT_S", 30)
    request = post()
    with server.connect() as connection:
        connection.sendall(request[:-5])
        wait_until(lambda: any(held_by(server)))
        begun = perf_counter()
        connection.sendall(request[-5:])
        read_answers(connection, 1)
    [(body, origin)] = server.service.asked
    assert body == BODY
    assert origin.arrived <= begun


def test_who_takes_too_long_for_the_rest_goes_the_general_way(server: Listening):
    request = post()
    with server.connect() as connection:
        connection.sendall(request[:-5])
        wait_until(lambda: server.service.generally == ["/retrieve"])
        connection.sendall(request[-5:])
        [answer] = read_answers(connection, 1)
        connection.sendall(request)  # and the next one is plain again
        read_answers(connection, 1)
    assert answer.document == {"size": len(BODY)}
    assert server.service.generally == ["/retrieve"]


def test_dripping_bytes_do_not_renew_the_time_for_the_rest(server: Listening, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connection_module, "REST_TIMEOUT_S", 0.2)
    request = post(b" " * 2_000)
    with server.connect() as connection:
        connection.sendall(request[:200])
        connection.settimeout(DRIP_S)
        sent = 200
        while not server.service.generally and sent < 1_200:
            connection.sendall(request[sent : sent + 1])
            sent += 1
            with contextlib.suppress(TimeoutError):
                connection.recv(1)
        assert server.service.generally == ["/retrieve"]
        connection.settimeout(30)
        connection.sendall(request[sent:])
        [answer] = read_answers(connection, 1)
    assert answer.document == {"size": 2_000}


KINDS = {
    "plain": lambda size: post(b"x" * size),
    "chunked": lambda size: chunked(b"x" * size),
    "get": lambda _: GET,
    "closing bracket": lambda size: post(b"x" * size, b"TE: trailers"),
}


@pytest.mark.parametrize("seed", range(20))
def test_a_row_of_requests_is_answered_in_order_however_it_is_cut(server: Listening, seed: int):
    choose = random.Random(seed)
    requests = [(kind, size) for size in range(1, 13) for kind in [choose.choice(list(KINDS))]]
    data = b"".join(KINDS[kind](size) for kind, size in requests) + LAST
    cuts = sorted(choose.randrange(len(data)) for _ in range(choose.randrange(12)))
    with server.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            connection.sendall(data[start:end])
        answers = answers_in(read_all(connection))
    expected = [b"live\n" if kind == "get" else b'{"size":%d}' % size for kind, size in requests]
    assert [answer.body for answer in answers] == [*expected, b"live\n"]


def test_a_request_behind_one_in_progress_waits_for_its_turn(server: Listening):
    with server.connect() as connection:
        connection.sendall(post(b"hold 1") + GET + post(b"two") + chunked(b"three"))
        wait_until(lambda: len(server.service.gate) == 1)
        assert len(server.service.asked) == 1
        server.let_go()
        answers = read_answers(connection, 4)
    assert [answer.body for answer in answers] == [b'{"size":6}', b"live\n", b'{"size":3}', b'{"size":5}']


def test_a_client_that_goes_away_gives_up_its_request_and_those_behind_it(server: Listening):
    with server.connect() as connection:
        connection.sendall(post(b"hold") + post(b"never"))
        wait_until(lambda: len(server.service.gate) == 1)
    wait_until(lambda: len(server.service.ended) == 1)
    assert [error.problem for error in server.service.ended] == ["cancelled"]
    assert [body for body, _ in server.service.asked] == [b"hold"]
    server.service.gate.clear()


def test_a_client_that_goes_away_gives_up_its_request_on_the_general_way_too(server: Listening):
    with server.connect() as connection:
        connection.sendall(chunked(b"hold"))
        wait_until(lambda: len(server.service.gate) == 1)
    wait_until(lambda: len(server.service.ended) == 1)
    assert [error.problem for error in server.service.ended] == ["cancelled"]
    server.service.gate.clear()


# --- clients that do not read ---------------------------------------------------------------------------------------


def flood(connection: socket.socket, request: bytes) -> int:
    """Send until nothing is taken any more; the number of requests that were sent whole."""
    connection.settimeout(0.5)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while True:
            connection.sendall(request)
            sent += 1
    return sent


def test_a_client_that_does_not_read_is_made_to_wait_and_then_served(server: Listening):
    """Whether it sends all at once or one by one, no more answers are made than the connection holds."""
    request = post(b"large" + b" " * 30_000)
    with server.connect() as connection:
        sent = flood(connection, request)
        assert len(server.service.asked) * 200_000 < 20_000_000  # what the kernel and we hold, however much was sent
        assert sent > len(server.service.asked)
        assert sent * len(request) > MAX_HELD_BYTES
        connection.settimeout(30)
        answered = 0
        rest = b""
        while answered < sent:
            rest += connection.recv(1_000_000)
            answered += rest.count(b"HTTP/1.1 200 OK")
            rest = rest[-15:] if not rest.endswith(b"HTTP/1.1 200 OK") else b""


def test_a_client_that_never_reads_is_let_go():
    with listening(keep_alive_s=0.2) as server, server.connect() as connection:
        with contextlib.suppress(ConnectionError):
            flood(connection, post(b"large"))
        wait_until(lambda: not server.server.server_state.connections)


# --- bodies that nobody reads ---------------------------------------------------------------------------------------


SMUGGLED = post(b"smuggled")


@pytest.mark.parametrize(
    "early",
    [
        b"GET /health/live HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED),
        b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED),
        b"DELETE /retrieve HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED),
    ],
    ids=["health", "no such path", "no such method"],
)
@pytest.mark.parametrize("cut", [0, 1, 20, 60])
def test_a_body_that_comes_after_its_answer_is_no_request(server: Listening, early: bytes, cut: int):
    with server.connect() as connection:
        connection.sendall(early + SMUGGLED[:cut])
        [first] = read_answers(connection, 1)
        with contextlib.suppress(ConnectionError):  # it is closed: nobody would read the body
            connection.sendall(SMUGGLED[cut:] + post(b"next") + LAST)
            assert read_all(connection) == b""
    assert first.status in {200, 404, 405}
    assert server.service.asked == []


def test_a_chunked_body_that_comes_after_its_answer_is_no_request(server: Listening):
    head = b"GET /health/live HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with server.connect() as connection:
        connection.sendall(head)
        read_answers(connection, 1)
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED) + LAST)
            assert read_all(connection) == b""
    assert server.service.asked == []


def test_a_body_that_looks_like_an_offer_to_upgrade_stays_as_it_is(server: Listening):
    """Made longer, its end would be read as a request."""
    body = b"\r\nUpgrade:" * 20 + b"\r\n\r\n" + SMUGGLED
    with server.connect() as connection:
        connection.sendall(post(body, b"Expect: 100-continue")[: -len(body)])
        assert connection.recv(65_536).startswith(b"HTTP/1.1 100")
        connection.sendall(body)
        connection.sendall(LAST)
        answers = answers_in(read_all(connection))
    assert [answer.body for answer in answers] == [b'{"size":%d}' % len(body), b"live\n"]
    assert [asked for asked, _ in server.service.asked] == [body]


# --- the end of a connection ----------------------------------------------------------------------------------------


def test_an_idle_connection_is_closed_after_a_while():
    with listening(keep_alive_s=0.2) as server:
        for request in (post(), GET):
            with server.connect() as connection:
                connection.sendall(request)
                assert len(answers_in(read_all(connection))) == 1


def test_a_request_in_progress_is_not_idle():
    with listening(keep_alive_s=0.05) as server, server.connect() as connection:
        connection.sendall(post())
        read_answers(connection, 1)
        connection.sendall(post(b"hold"))
        wait_until(lambda: len(server.service.gate) == 1)
        other = [server.converse(GET) for _ in range(5)]  # each takes as long as an idle connection is kept
        assert all(other)
        server.let_go()
        assert [answer.document for answer in answers_in(read_all(connection))] == [{"size": 4}]


def test_a_connection_that_is_used_again_and_again_stays():
    with listening(keep_alive_s=1) as server, server.connect() as connection:
        ends = perf_counter() + 2.5
        while perf_counter() < ends:
            connection.sendall(post())
            read_answers(connection, 1)
        assert is_open(connection)


@pytest.mark.parametrize("begun", [b"\r\n", GET[:-4], post()[:-4]], ids=["empty line", "header", "body"])
def test_who_stops_halfway_is_let_go(monkeypatch: pytest.MonkeyPatch, begun: bytes):
    monkeypatch.setattr(connection_module, "HEADER_TIMEOUT_S", 0.2)
    monkeypatch.setattr("service.routes.BODY_TIMEOUT_S", 0.2)
    with listening(keep_alive_s=0.2) as server, server.connect() as connection:
        connection.sendall(post())
        read_answers(connection, 1)
        connection.sendall(begun)
        rest = answers_in(read_all(connection))
    assert [answer.status for answer in rest] in ([], [408])


def test_an_answer_is_not_cut_off_by_a_slow_header_behind_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connection_module, "HEADER_TIMEOUT_S", 0.05)
    with listening(keep_alive_s=60) as server, server.connect() as connection:
        connection.sendall(chunked(b"hold"))
        wait_until(lambda: len(server.service.gate) == 1)
        connection.sendall(GET[:10])
        with server.connect() as silent:
            read_all(silent)  # until its header is late too
        server.let_go()
        answers = answers_in(read_all(connection))
    assert [answer.document for answer in answers] == [{"size": 4}]


def test_a_shutdown_closes_after_the_answer():
    with listening() as server, server.connect() as busy, server.connect() as idle:
        for connection in (busy, idle):
            connection.sendall(post())
            read_answers(connection, 1)
        busy.sendall(post(b"hold") + post(b"behind it"))
        wait_until(lambda: len(server.service.gate) == 1)
        server.server.should_exit = True
        assert read_all(idle) == b""
        server.let_go()
        [answer] = answers_in(read_all(busy))
        assert answer.document == {"size": 4}


def test_a_draining_service_answers_and_closes():
    with listening() as server, server.connect() as connection:
        connection.sendall(post())
        read_answers(connection, 1)
        server.service.draining = True
        server.server.server_state.default_headers.append((b"connection", b"close"))
        connection.sendall(post())
        [answer] = answers_in(read_all(connection))
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert server.service.generally == ["/retrieve"]
