"""A front process: reads requests, tokenises their queries, has the engine answer them, and writes the answers.

    client ──> FrontConnection ──plain POST /retrieve──> Front ──frames──> engine: admit, batch, encode, search
                     └─anything else: the connection itself goes to the engine, and stays there

It decides nothing: whatever is refused is refused by the engine, so what is counted there is all there is. Started by
`service.fronts`, which says how in `run`.
"""

import asyncio
import itertools
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import orjson
import uvicorn
import uvloop
from pydantic import ValidationError

from artifacts.errors import HlmError
from artifacts.manifest import TextRules
from service.answer import to_json
from service.connection import Connection
from service.draining import DrainingServer, server_config
from service.errors import DeadlineExceeded, NotReadyError, RequestError
from service.link import Frame, Kind, Link, pack_request, unpack_answer, unpack_refusal
from service.logs import configure_logging, log_loop_exception
from service.origin import OnDone, Origin
from service.query_tokenizer import Prepared, QueryTokenizer
from service.schemas import MAX_TIMEOUT_MS, RetrieveRequest
from service.settings import FrontSettings

GRACE_S = 0.5
"""After its deadline a request whose engine says nothing is answered here."""
LOOK_S = 0.25
"""How often such requests are looked for."""
RETRY_S = 0.002
"""Before a connection is handed over again that could not be."""

logger = logging.getLogger(__name__)


class Pending:
    """A request that the engine has."""

    __slots__ = ("_cancel", "expires", "on_done")

    def __init__(self, on_done: OnDone, expires: float, cancel: Callable[[], None]) -> None:
        self.on_done = on_done
        self.expires = expires
        self._cancel = cancel

    def resolve(self, _: RequestError, /) -> None:
        """Give it up: its client has gone, and the engine counts it so."""
        self._cancel()


class Front(Link):
    """Answers plain requests by asking the engine; a `service.connection.Handler`."""

    draining = False
    has_served = True

    def __init__(self, settings: FrontSettings, sockets: socket.socket) -> None:
        """Prepare; `sockets` takes connections that the engine is to answer."""
        super().__init__()
        self.settings = settings
        self._sockets = sockets
        self._numbers = itertools.count(1)
        self._pending: dict[int, Pending] = {}
        self._tokenizer: QueryTokenizer | None = None
        self._loading: set[asyncio.Task[None]] = set()
        self.server: DrainingServer | None = None

    # --- requests -----------------------------------------------------------------------------------------------------

    def shed(self, body: bytes, caller: str) -> None:
        """Leave that to the engine, which counts it."""

    def handle(self, body: bytes, origin: Origin, on_done: OnDone) -> Pending:
        """Have the engine answer; see `Retriever.handle`."""
        number, (timeout_ms, prepared) = next(self._numbers), self._prepare(body)
        expires = origin.arrived + timeout_ms / 1e3 + GRACE_S
        pending = self._pending[number] = Pending(on_done, expires, partial(self._cancel, number))
        if self._transport is None or self._transport.is_closing():
            asyncio.get_running_loop().call_soon(self._end, number, _engine_lost())
        else:
            asked = Origin(origin.caller, origin.arrived, origin.release, origin.traceparent, prepared)
            self.send(Kind.REQUEST, number, *pack_request(asked, body))
        return pending

    def _prepare(self, body: bytes) -> tuple[int, Prepared | None]:
        """The time budget in ms, and the query tokenised; of what is wrong the engine says what it is."""
        try:
            request = RetrieveRequest.model_validate_json(body)
        except ValidationError:
            return MAX_TIMEOUT_MS, None
        timeout_ms = request.timeout_ms or self.settings.limits.default_timeout_ms
        try:
            return timeout_ms, None if self._tokenizer is None else self._tokenizer.prepare(request.query)
        except Exception:  # the engine will meet it too, and fail this query alone
            logger.exception("a query could not be tokenised")
            return timeout_ms, None

    def _cancel(self, number: int) -> None:
        if self._pending.pop(number, None) is not None:
            self.send(Kind.CANCEL, number)

    def _end(self, number: int, outcome: bytes | RequestError) -> None:
        pending = self._pending.pop(number, None)
        if pending is not None:  # not given up meanwhile
            pending.on_done(outcome)

    def expire(self, now: float) -> None:
        """Answer what the engine has let pass, as where it stands still."""
        for number in [number for number, pending in self._pending.items() if pending.expires <= now]:
            self.send(Kind.CANCEL, number)
            self._end(number, DeadlineExceeded("no answer within the time budget"))

    # --- connections that the engine is to answer ---------------------------------------------------------------------

    def hand_over(self, connection: socket.socket, data: bytes) -> None:
        """Give a client to the engine, with what has been read from it.

        Raises:
            BlockingIOError: the engine has many to take already; try again.
            OSError: it is gone.
        """
        number = next(self._numbers)
        socket.send_fds(self._sockets, [number.to_bytes(8, "little")], [connection.fileno()])
        self.send(Kind.CONNECTION, number, data)

    # --- frames -------------------------------------------------------------------------------------------------------

    def received(self, frame: Frame) -> None:
        """Take what the engine says."""
        if frame.kind is Kind.ANSWER:
            self._end(frame.number, to_json(unpack_answer(frame.payload)))
        elif frame.kind is Kind.REFUSAL:
            self._end(frame.number, unpack_refusal(frame.payload))
        elif frame.kind is Kind.PING:
            self.send(Kind.PONG)
        elif frame.kind is Kind.TOKENIZER:
            task = asyncio.get_running_loop().create_task(self._load_tokenizer(orjson.loads(frame.payload)))
            self._loading.add(task)
            task.add_done_callback(self._loading.discard)
        elif self.server is not None and frame.kind is Kind.DRAIN:
            self.draining = True
            self.server.close_connections()
        elif self.server is not None and frame.kind is Kind.STOP:
            self.server.should_exit = True

    async def _load_tokenizer(self, said: dict[str, Any]) -> None:
        if self._tokenizer is not None and self._tokenizer.tag == said["tag"]:
            return
        rules = TextRules.model_validate(said["rules"])
        try:
            self._tokenizer = await asyncio.to_thread(
                QueryTokenizer.open, Path(said["directory"]), rules, said["prompt"]
            )
        except HlmError as error:
            logger.warning("the engine has to tokenise: %s", error)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the signature is asyncio's
        """End with the engine; what it had is refused, so that its clients try elsewhere."""
        for number in list(self._pending):
            self._end(number, _engine_lost())
        self.draining = True
        if self.server is not None:
            self.server.close_connections()
            self.server.should_exit = True


class FrontConnection(Connection):
    """A client's connection, as long as it asks plainly."""

    def __init__(self, front: Front, **uvicorns: Any) -> None:
        super().__init__(front, **uvicorns)
        self._front = front

    def _take_generally(self, data: bytes) -> None:
        """Hand the connection over once the last answer is on its way; the engine reads on from here."""
        self.flow.pause_reading()
        self._in_progress = True  # nothing else may be taken from it, and no timer close it
        self._header_complete()
        if self.transport.get_write_buffer_size():  # which no other process could write
            self._try_again(data)
            return
        try:
            self._front.hand_over(self.transport.get_extra_info("socket"), data)
        except BlockingIOError:
            self._try_again(data)
        except OSError:
            self._closes = True
            self._reply(_engine_lost())
        else:
            self.transport.abort()  # this process's hold on it

    def _try_again(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.loop.call_later(RETRY_S, self._take_generally, data)


class FrontServer(DrainingServer):
    """Accepts clients from a listener that all front processes share."""

    at_once = 1  # a burst of connections is then taken by all of them

    def __init__(self, config: uvicorn.Config, front: Front) -> None:
        super().__init__(config, front)
        self._front = front

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take no signal: the engine does, and says what to do."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self._front.send(Kind.HELLO)


def _engine_lost() -> NotReadyError:
    return NotReadyError("the engine process is gone")


async def _expire(front: Front) -> None:
    while True:
        await asyncio.sleep(LOOK_S)
        front.expire(perf_counter())


async def _nothing(_scope: Any, _receive: Any, _send: Any) -> None:
    """Stand in for an app: no request is answered by one here."""


async def _serve(settings: FrontSettings, listener: socket.socket, link: socket.socket, sockets: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(log_loop_exception)
    front = Front(settings, sockets)
    front.server = FrontServer(server_config(settings.server, _nothing, partial(FrontConnection, front)), front)
    await loop.create_unix_connection(lambda: front, sock=link)
    expiring = asyncio.create_task(_expire(front))
    try:
        await front.server.serve(sockets=[listener])
    finally:
        expiring.cancel()
        front.close()


def run(arguments: list[str]) -> None:
    """Serve until the engine says otherwise or is gone.

    Args:
        arguments: descriptors of the listener, of the link and of the socket that passes connections on, then the
            settings as JSON.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # which a terminal, or a service manager, sends to all processes
        signal.signal(number, signal.SIG_IGN)
    settings = FrontSettings.model_validate_json(arguments[3])
    configure_logging(settings.server)
    listener, link, sockets = (socket.socket(fileno=int(number)) for number in arguments[:3])
    for one in (listener, link, sockets):
        one.setblocking(False)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, listener, link, sockets))


if __name__ == "__main__":
    run(sys.argv[1:])
