"""The real connection, parser and app on a loopback port, over a stand-in for what answers: a model takes seconds."""

import contextlib
import json
import re
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple, cast

import uvicorn

from service.app import create_app
from service.batcher import Ticket
from service.connection import Connection
from service.errors import Overloaded, RequestError
from service.metrics import Metrics
from service.origin import OnDone, Origin
from service.service import Service
from service.settings import Settings

PATIENCE_S = 30.0


@dataclass
class StandIn:
    """Answers with what it was asked; keeps those that say `hold` until `let_go`."""

    settings: Settings
    metrics: Metrics = field(default_factory=Metrics)
    draining: bool = False
    live: bool = True
    problems: tuple[str, ...] = ()
    asked: list[tuple[bytes, Origin]] = field(default_factory=list)
    ended: list[RequestError] = field(default_factory=list)
    """How those that were held and given up ended."""
    generally: list[str] = field(default_factory=list)
    """Paths of requests that went the general way."""

    def __post_init__(self) -> None:
        self.gate: list[Callable[[], None]] = []

    def shed(self, body: bytes, caller: str) -> None:
        """Refuse nothing."""

    def handle(self, body: bytes, origin: Origin, on_done: OnDone) -> Any:
        self.asked.append((body, origin))
        if b"overload" in body:
            on_done(Overloaded("too many queries are waiting already", 1.5))
            return None
        answer = b'{"size":%d}' % len(body) if b"large" not in body else b'{"large":"%s"}' % (b"x" * 200_000)
        if b"hold" not in body:
            on_done(answer)
            return None

        def end(outcome: Any) -> None:
            if isinstance(outcome, RequestError):
                self.ended.append(outcome)
            on_done(outcome)

        ticket: Ticket[Any, bytes] = Ticket(body, perf_counter() + 60, end, 1, origin.caller, "release", None)
        self.gate.append(partial(ticket.resolve, answer))
        return ticket

    def app(self) -> Callable[..., Awaitable[None]]:
        app = create_app(cast("Service", self))

        async def counted(scope: Any, receive: Any, send: Any) -> None:
            self.generally.append(scope["path"])
            await app(scope, receive, send)

        return counted


class Listening(NamedTuple):
    """A server and what it was asked."""

    port: int
    service: StandIn
    server: uvicorn.Server
    call: Callable[[Callable[[], object]], object]
    """Have something called on the server's event loop."""

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)

    def converse(self, data: bytes) -> bytes:
        """All that comes back until the server closes the connection."""
        with self.connect() as connection:
            connection.sendall(data)
            return read_all(connection)

    def let_go(self) -> None:
        """Answer those that are held."""
        while self.service.gate:
            self.call(self.service.gate.pop(0))


@contextlib.contextmanager
def listening(keep_alive_s: float = 60, **sections: object) -> Iterator[Listening]:
    """A server on a thread of its own."""
    release = {"name": "stand-in", "encoder": "none", "index": "none"}
    service = StandIn(Settings.model_validate({"release": release, **sections}))
    loops: list[Any] = []

    def make_connection(**uvicorns: Any) -> Connection:
        connection = Connection(cast("Service", service), **uvicorns)
        loops.append(connection.loop)
        return connection

    def call(what: Callable[[], object]) -> object:
        return loops[0].call_soon_threadsafe(what)

    config = uvicorn.Config(
        service.app(),
        http=make_connection,  # type: ignore[arg-type]
        loop="uvloop",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=cast("int", keep_alive_s),
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield Listening(listener.getsockname()[1], service, server, call)
        finally:
            server.should_exit = True
            thread.join(PATIENCE_S)


def read_all(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65_536), b""))


class Answer(NamedTuple):
    """One answer out of the bytes of a connection."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


def answers_in(data: bytes) -> list[Answer]:
    """The answers, one behind the other; interim ones are left out."""
    found = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        status = int(first.split()[1])
        if status == 100:
            continue
        assert re.match(r"HTTP/1\.1 \d{3} [A-Z]", first), first
        length = int(headers["content-length"])
        found.append(Answer(status, headers, data[:length]))
        assert len(found[-1].body) == length
        data = data[length:]
    return found


def read_answers(connection: socket.socket, count: int) -> list[Answer]:
    """So many answers of a connection that stays open."""
    data = b""
    while data.count(b"HTTP/1.1 ") < count or not is_whole(data):
        more = connection.recv(65_536)
        assert more, f"closed after {data!r}"
        data += more
    return answers_in(data)


def is_whole(data: bytes) -> bool:
    try:
        return bool(answers_in(data))
    except (AssertionError, KeyError, ValueError, IndexError):
        return False


def is_open(connection: socket.socket) -> bool:
    """Whether a request on it is still answered."""
    connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
    return bool(connection.recv(65_536))
