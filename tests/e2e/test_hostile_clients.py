"""Clients that hold connections, memory or other callers' requests, on real sockets."""

import contextlib
import json
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.e2e.conftest import Server
from tests.waiting import PATIENCE_S, wait_until

pytestmark = pytest.mark.e2e

DRIP_S = 0.02
"""Between two bytes of a client that drips: less than any limit of the service."""
GET = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def post(body: bytes, *fields: bytes) -> bytes:
    head = [b"POST /retrieve HTTP/1.1", b"Host: x", b"Content-Length: %d" % len(body), *fields]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


RETRIEVE = post(json.dumps({"query": "drill", "timeout_ms": 10_000}).encode())


@pytest.fixture(scope="module")
def attacked(encoder: Path, sample_index: Path) -> Iterator[Server]:
    """A server that keeps idle connections for a second."""
    env = {"HLM_SERVER__KEEP_ALIVE_TIMEOUT_MS": "1000"}
    server = Server("--name", "test", "--encoder", encoder, "--index", sample_index, "--port", "0", env=env)
    yield server
    assert server.stop() == 0


def connect(server: Server) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE_S)


def converse(server: Server, data: bytes) -> bytes:
    """All that comes back until the server closes the connection."""
    with connect(server) as connection:
        connection.sendall(data)
        return b"".join(iter(lambda: connection.recv(65_536), b""))


# --- connections that are held --------------------------------------------------------------------------------------


class Clinging(NamedTuple):
    """A client that never finishes what it began."""

    answered: bytes = b""
    """Sent first; the rest follows when there is an answer."""
    begun: bytes = b""
    dripped: bytes = b""


BODY_LEFT_OUT = b"GET /health/live HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
ENDLESS = b"X: y\r\n" * 1_000
CLINGING = {
    "says nothing": Clinging(),
    "is idle": Clinging(answered=GET),
    "is idle after its ads": Clinging(answered=RETRIEVE),
    "stops in a header": Clinging(begun=GET[:-4]),
    "stops in its second header": Clinging(answered=RETRIEVE, begun=RETRIEVE[:30]),
    "drips a header": Clinging(begun=GET[:-2], dripped=ENDLESS),
    "drips its second header": Clinging(answered=GET, begun=GET[:-2], dripped=ENDLESS),
    "stops in a body": Clinging(begun=RETRIEVE[:-5]),
    "drips a body": Clinging(begun=post(b" " * 3_000)[:-2_900], dripped=b" " * 2_899),
    "drips chunks": Clinging(
        begun=b"POST /retrieve HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", dripped=b"1\r\n \r\n" * 500
    ),
    "sends an empty line and stops": Clinging(answered=GET, begun=b"\r\n"),
    "drips empty lines": Clinging(answered=GET, dripped=b"\r\n" * 1_000),
    "is answered and stops in the body": Clinging(answered=BODY_LEFT_OUT, begun=b"x"),
    "is answered and drips the body": Clinging(answered=BODY_LEFT_OUT, dripped=b"x" * 3_000),
}


def is_let_go(server: Server, client: Clinging) -> bool:
    """Whether the server closes the connection while the client clings to it."""
    with connect(server) as connection, contextlib.suppress(ConnectionError):
        if client.answered:
            connection.sendall(client.answered)
            connection.recv(65_536)
        connection.sendall(client.begun)
        connection.settimeout(DRIP_S)
        for number in range(int(PATIENCE_S / DRIP_S)):
            connection.sendall(client.dripped[number : number + 1])
            with contextlib.suppress(TimeoutError):
                if not connection.recv(65_536):
                    return True
        return False
    return True


@pytest.fixture(scope="module")
def let_go(attacked: Server) -> dict[str, bool]:
    """What became of each of `CLINGING`, all at once since each takes as long as the service is patient."""
    with ThreadPoolExecutor(len(CLINGING)) as pool:
        outcomes = pool.map(lambda client: is_let_go(attacked, client), CLINGING.values())
        return dict(zip(CLINGING, outcomes, strict=True))


@pytest.mark.parametrize("name", CLINGING)
def test_a_connection_is_let_go_when_its_client(let_go: dict[str, bool], name: str):
    assert let_go[name]


def is_held(connection: socket.socket) -> bool:
    """Whether a process, rather than the kernel alone, has the other end; the client would learn of it by reading."""
    ports = [f":{address[1]:04X}" for address in (connection.getpeername(), connection.getsockname())]
    for line in Path("/proc/net/tcp").read_text().splitlines():
        fields = line.split()
        if fields[1].endswith(ports[0]) and fields[2].endswith(ports[1]):
            return fields[9] != "0"
    return False


def test_a_connection_is_let_go_when_its_client_never_reads(attacked: Server):
    request = post(json.dumps({"query": "drill", "top_k": 1_000, "fields": ["title", "description"]}).encode())
    with connect(attacked) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(1)
        with contextlib.suppress(TimeoutError, ConnectionError):
            for _ in range(2_000):
                connection.sendall(request)
        wait_until(lambda: not is_held(connection))


def test_five_hundred_silent_connections_keep_nobody_out(attacked: Server):
    with contextlib.ExitStack() as silent:
        for _ in range(500):
            silent.enter_context(connect(attacked))
        assert attacked.retrieve("drill").status_code == 200


# --- headers without measure ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields", [b"X: y\r\n" * 200_000, b"X: " + b"y" * 1_000_000 + b"\r\n"], ids=["many fields", "a long field"]
)
@pytest.mark.parametrize("start", [GET, RETRIEVE], ids=["GET", "POST"])
def test_a_header_over_the_limit_is_cut_off(attacked: Server, start: bytes, fields: bytes):
    head, _, body = start.partition(b"\r\n\r\n")
    assert converse(attacked, head + b"\r\n" + fields + b"\r\n" + body).startswith(b"HTTP/1.1 4")
    assert attacked.client.get("/health/live").status_code == 200


def test_fields_after_a_chunked_body_are_thrown_away(attacked: Server):
    """Each would cost twenty times its bytes in memory."""
    start = b"GET /health/live HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    memory = attacked.metric("process_resident_memory_bytes")
    assert converse(attacked, start + b"a: b\r\n" * 4_000_000).count(b"HTTP/1.1") == 1
    assert attacked.metric("process_resident_memory_bytes") < memory + 30_000_000


def test_small_requests_in_a_row_are_no_long_header(attacked: Server):
    assert converse(attacked, GET * 5_000 + LAST).count(b"HTTP/1.1 200 OK") == 5_001


@pytest.mark.parametrize("digits", [b"9" * 400, b"0" * 5_000 + b"5"], ids=["400 digits", "5,000 digits"])
def test_a_length_beyond_reading_is_refused(attacked: Server, digits: bytes):
    request = b"POST /retrieve HTTP/1.1\r\nHost: x\r\nContent-Length: " + digits + b"\r\n\r\n"
    answer = converse(attacked, request + b" " * 9)
    assert answer.startswith(b"HTTP/1.1 4")
    assert b"internal_error" not in answer


# --- requests that are understood in two ways -----------------------------------------------------------------------


def chunked(*lines: bytes) -> bytes:
    return b"POST /retrieve HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n" + b"\r\n".join(lines)


@pytest.mark.parametrize(
    "request_bytes",
    [
        chunked(b"Content-Length: 5", b"", b"0", b"", b""),
        post(b"{}", b"Content-Length: 1"),
        post(b"{}", b"Content-Length: 2"),
        post(b"{}").replace(b"Length:", b"Length :"),
        post(b"{}").replace(b"Length: ", b"Length:\r\n "),
        post(b"{}", b"X: y\nTransfer-Encoding: chunked"),
        post(b"{}", b"X: y\rTransfer-Encoding: chunked"),
        post(b"{}", b"X: \0"),
        post(b"{}").replace(b"\r\n", b"\n"),
        chunked(b"", b"-1", b"x", b"0", b"", b""),
        chunked(b"", b"FFFFFFFFFFFFFFFFF", b"x"),
    ],
    ids=[
        *("two kinds of length", "two lengths", "one length twice", "space before the colon", "folded"),
        *("a bare line feed", "a bare carriage return", "NUL", "line feeds alone", "negative chunk", "endless chunk"),
    ],
)
def test_a_request_whose_end_is_in_doubt_is_refused_and_the_connection_closed(attacked: Server, request_bytes: bytes):
    answer = converse(attacked, request_bytes + GET)
    assert answer.startswith(b"HTTP/1.1 400")
    assert answer.count(b"HTTP/1.1") == 1


def test_no_body_becomes_a_request(attacked: Server):
    """A proxy that shares a connection between its callers would hand the answer to the next of them."""
    smuggled = b"GET /info HTTP/1.1\r\nHost: evil\r\n\r\n"
    assert len(smuggled) % 2 == 0
    body = b"\r\nUpgrade:" * (len(smuggled) // 2) + b"\r\n\r\n" + smuggled
    with connect(attacked) as connection:
        connection.sendall(post(body, b"Expect: 100-continue")[: -len(body)])
        assert connection.recv(65_536).startswith(b"HTTP/1.1 100")
        connection.sendall(body)
        connection.sendall(LAST)
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert re.findall(rb"HTTP/1\.1 (\d+)", answer) == [b"400", b"200"]
    assert b'"ready":' not in answer
