"""A server that loses no request when it ends, nor when many clients come at once."""

import asyncio
import itertools
import logging
import signal
import socket
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import ClassVar, Protocol, cast

import uvicorn
from starlette.types import ASGIApp

from service.connection import Connection
from service.settings import ServerSettings

RETRY_S = 0.5
"""Before connections are accepted again that could not be."""
LAST_REQUESTS_S = 0.2
"""Between the end of listening and the closing of connections that have no request in progress."""

logger = logging.getLogger(__name__)


class HasServer(Protocol):
    """Settings, as far as a server goes by them."""

    @property
    def server(self) -> ServerSettings:
        """Where it listens and how it stops."""


class Drains(Protocol):
    """What a server ends with."""

    draining: bool

    @property
    def has_served(self) -> bool:
        """Whether there may be clients who have to learn that it ends."""

    @property
    def settings(self) -> HasServer:
        """How long they may take for it."""


class Ahead(Protocol):
    """Whoever takes clients in the server's place, and passes some on to it."""

    def drain(self) -> None:
        """Close connections after their next answer."""

    async def stop(self) -> None:
        """Take no more clients, and finish what was taken."""


def server_config(settings: ServerSettings, app: ASGIApp, connection: Callable[..., Connection]) -> uvicorn.Config:
    """What uvicorn is told; `connection` makes one."""
    return uvicorn.Config(
        app,
        http=connection,  # type: ignore[arg-type]  # only called
        loop="uvloop",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.keep_alive_timeout_ms / 1e3,  # type: ignore[arg-type]  # only waited for
        timeout_graceful_shutdown=settings.shutdown_timeout_ms / 1e3,  # type: ignore[arg-type]  # only awaited
    )


class DrainingServer(uvicorn.Server):
    """On SIGTERM: not ready, answer for the grace time, finish what is in flight, close.

    SIGINT skips the grace time, and a second signal of either kind ends it as well.
    """

    at_once: ClassVar[int | None] = None
    """Most connections that are accepted in a turn of the loop; None: all that wait."""

    def __init__(self, config: uvicorn.Config, service: Drains) -> None:
        super().__init__(config)
        self._service = service
        self.ahead: Ahead | None = None
        self._accepting: set[asyncio.Task[object]] = set()
        self._stopping: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature is uvicorn's
        """Take a signal; called between two byte codes of whatever runs."""
        asyncio.get_running_loop().call_soon_threadsafe(self._drain, sig)

    def _drain(self, sig: int) -> None:
        first = not self._service.draining
        self._service.draining = True
        if first:
            self.close_connections()
            if self.ahead is not None:
                self.ahead.drain()
        if first and sig == signal.SIGTERM and self._service.has_served:
            grace_s = self._service.settings.server.drain_grace_ms / 1e3
            logger.info("draining: not ready any more, accepting for another %.1f s", grace_s)
            asyncio.get_running_loop().call_later(grace_s, self._stop_accepting)
        else:
            self._stop_accepting()

    def close_connections(self) -> None:
        """Have every answer close its connection: clients are to leave before the listener closes."""
        self.config.encoded_headers.append((b"connection", b"close"))  # from which uvicorn renews the other list
        self.server_state.default_headers.append((b"connection", b"close"))

    def _stop_accepting(self) -> None:
        if self.ahead is None:
            self.should_exit = True
        elif self._stopping is None:
            self._stopping = asyncio.get_running_loop().create_task(self._stop_after(self.ahead))

    async def _stop_after(self, ahead: Ahead) -> None:
        await ahead.stop()
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen. uvicorn itself would have uvloop accept one connection a turn, and a burst wait for many turns."""
        await super().startup(sockets=[])
        for listener in sockets or ():
            listener.setblocking(False)
            self._listen(listener)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close, and lose no request that a client could send.

        A closing listener resets the connections that the kernel has made and nobody has accepted, and uvicorn closes
        those whose first request is still on its way; with either a request is lost that was already sent. One that
        was accepted a moment ago is not on uvicorn's list yet, and would keep the process until its time is up.
        """
        for listener in sockets or ():
            asyncio.get_running_loop().remove_reader(listener)
            self._accept_waiting(listener)
            listener.close()
        if self._accepting:
            await asyncio.wait(self._accepting)
        await asyncio.sleep(LAST_REQUESTS_S)
        await super().shutdown()

    def _accept_waiting(self, listener: socket.socket, at_once: int | None = None) -> None:
        """Take the connections that wait to be accepted, all or so many."""
        loop = asyncio.get_running_loop()
        try:
            for _ in itertools.count() if at_once is None else range(at_once):
                connection, _ = listener.accept()
                connection.setblocking(False)
                self.take(connection)
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:  # most likely too many open files
            logger.exception("connections cannot be accepted (%s); trying again in %g s", error.strerror, RETRY_S)
            loop.remove_reader(listener)
            loop.call_later(RETRY_S, self._listen, listener)

    def take(self, connection: socket.socket, data: bytes = b"") -> None:
        """Serve a client that was accepted, and of which `data` has been read."""
        loop = asyncio.get_running_loop()
        task = loop.create_task(loop.connect_accepted_socket(partial(self._make_protocol, data), connection))
        self._accepting.add(task)
        task.add_done_callback(self._accepting.discard)

    def _listen(self, listener: socket.socket) -> None:
        if listener.fileno() >= 0:  # not closed meanwhile
            asyncio.get_running_loop().add_reader(listener, self._accept_waiting, listener, self.at_once)

    def _make_protocol(self, data: bytes) -> Connection:
        make = cast("Callable[..., Connection]", self.config.http_protocol_class)
        connection = make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)
        if data:
            connection.begin_with(data)
        return connection
