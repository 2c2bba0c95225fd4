"""Runs the service: listen, load, answer, drain, stop."""

import asyncio
import contextlib
import logging
import re
import signal
import socket
from collections.abc import Callable, Iterator
from types import FrameType
from typing import cast

import orjson
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from artifacts.errors import HlmError
from service.app import create_app
from service.errors import StartupError
from service.release import Release
from service.routes import CONNECTION_KEY
from service.service import Service
from service.settings import ServerSettings, Settings

UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)
HEADER_TIMEOUT_S = 10.0
"""How long a request's header may take, and a new connection's first one."""
MAX_HEADER_BYTES = 65_536
LAST_REQUESTS_S = 0.2
"""Between the end of listening and the closing of connections that have no request in progress."""

logger = logging.getLogger(__name__)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, which end it cleanly.

    Raises:
        HlmError: the address is taken, or the release cannot be served.
    """
    logging.basicConfig(
        level=settings.server.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # its start and stop messages; ours say more
    listener = bind(settings.server)
    config = uvicorn.Config(
        create_app(service := Service(settings)),
        http=Connection,
        loop="uvloop",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.server.keep_alive_timeout_ms // 1_000,
        timeout_graceful_shutdown=settings.server.shutdown_timeout_ms / 1e3,  # type: ignore[arg-type]  # only awaited
    )
    server = DrainingServer(config, service)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(_run(server, service, listener))


async def _run(server: "DrainingServer", service: Service, listener: socket.socket) -> None:
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    loading = asyncio.create_task(service.start())
    try:
        await asyncio.wait((serving, loading), return_when=asyncio.FIRST_COMPLETED)
        if not serving.done():
            release = await loading
            if not server.should_exit:  # a signal may end it before the release is loaded
                _announce(release, listener)
        await serving
    except HlmError:
        server.should_exit = True
        await serving
        raise
    finally:
        loading.cancel()
        await service.stop()


class Connection(HttpToolsProtocol):
    """A connection that tells the request in progress at once when its client goes away.

    ASGI's own way, awaiting `receive()` beside the answer, costs a task a request; this costs nothing.
    """

    on_loss: Callable[[], None] | None = None
    _header_bytes = 0
    _waiting_for_header = True
    _header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to wait for a first request."""
        super().connection_made(transport)
        self._header_timer = self.loop.call_later(HEADER_TIMEOUT_S, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give up the request in progress, if any."""
        self._header_complete()
        super().connection_lost(exc)
        if self.on_loss is not None:
            self.on_loss()

    def on_message_begin(self) -> None:
        """Let the request know its connection; called by the parser."""
        super().on_message_begin()
        self._waiting_for_header = True
        cast("dict[str, object]", self.scope)[CONNECTION_KEY] = self

    def data_received(self, data: bytes) -> None:
        """Take bytes, without the offer to go on in HTTP/2 that Java's client makes with every request.

        The parser would stop at such a header and lose the body (uvicorn #2722); a server may ignore the offer.
        """
        head, separator, rest = data.partition(b"\r\n\r\n")
        if separator and UPGRADE.search(head):
            data = UPGRADE.sub(b"\r\nX-Upgrade:", head) + separator + rest
        super().data_received(data)
        if self._waiting_for_header:
            self._limit_header(len(data))

    def on_headers_complete(self) -> None:
        """Stop limiting the header; called by the parser."""
        self._header_complete()
        super().on_headers_complete()

    def _limit_header(self, more_bytes: int) -> None:
        """A header is small and comes at once; what is neither is given up."""
        self._header_bytes += more_bytes
        if self._header_bytes > MAX_HEADER_BYTES:
            self.send_400_response(f"the header has more than {MAX_HEADER_BYTES} bytes")
        elif self._header_timer is None:
            self._header_timer = self.loop.call_later(HEADER_TIMEOUT_S, self.transport.close)

    def _header_complete(self) -> None:
        self._waiting_for_header = False
        self._header_bytes = 0
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP with a problem document, as everything else is answered."""
        document = {"type": "invalid_http", "title": "The request is not HTTP", "status": 400, "detail": msg}
        body = orjson.dumps(document)
        head = f"HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\ncontent-length: {len(body)}"
        self.transport.write(head.encode() + b"\r\nconnection: close\r\n\r\n" + body)
        self.transport.close()


class DrainingServer(uvicorn.Server):
    """On SIGTERM: not ready, answer for the grace time, finish what is in flight, close.

    SIGINT skips the grace time, and a second signal of either kind ends it as well.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature is uvicorn's
        """Take a signal; called between two byte codes of whatever runs."""
        asyncio.get_running_loop().call_soon_threadsafe(self._drain, sig)

    def _drain(self, sig: int) -> None:
        first = not self._service.draining
        self._service.draining = True
        if first:
            # Clients are to leave before the listener closes. uvicorn renews the second list from the first.
            self.config.encoded_headers.append((b"connection", b"close"))
            self.server_state.default_headers.append((b"connection", b"close"))
        if first and sig == signal.SIGTERM and self._service.release is not None:
            grace_s = self._service.settings.server.drain_grace_ms / 1e3
            logger.info("draining: not ready any more, accepting for another %.1f s", grace_s)
            asyncio.get_running_loop().call_later(grace_s, self._stop_accepting)
        else:
            self._stop_accepting()

    def _stop_accepting(self) -> None:
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close, and lose no request that a client could send.

        A closing listener resets the connections that the kernel has made and nobody has accepted, and uvicorn closes
        those whose first request is still on its way; with either a request is lost that was already sent. One that
        was accepted a moment ago is not on uvicorn's list yet, and would keep the process until its time is up.
        """
        pending = [connection for listener in sockets or () for connection in _accept_pending(listener)]
        for server in self.servers:
            server.close()
        for connection in pending:
            await asyncio.get_running_loop().connect_accepted_socket(self._make_protocol, connection)
        await asyncio.sleep(LAST_REQUESTS_S)
        await super().shutdown(sockets)

    def _make_protocol(self) -> asyncio.Protocol:
        make = cast("Callable[..., asyncio.Protocol]", self.config.http_protocol_class)
        return make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)


def _accept_pending(listener: socket.socket) -> Iterator[socket.socket]:
    """The connections that wait to be accepted; the listener does not block, as the event loop has it as well."""
    with contextlib.suppress(BlockingIOError):
        while True:
            connection, _ = listener.accept()
            connection.setblocking(False)
            yield connection


def bind(settings: ServerSettings) -> socket.socket:
    """A listening socket.

    Raises:
        StartupError: the address is taken or not ours.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=2_048)
    except OSError as error:
        raise StartupError(
            f"cannot listen on {settings.host} port {settings.port} (server.host, server.port): {error.strerror}"
        ) from error


def _announce(release: Release, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    print(  # noqa: T201 - what the person who started it wants to see
        f"Serving release {release.name} on {url}: {release.ad_index.manifest.ad_count:,} ads, "
        f"{release.model_version}, {release.index_version}.\nTry:\n"
        f"  curl -s {url}/retrieve -H 'Content-Type: application/json' "
        """-d '{"query": "cordless drill 18v", "top_k": 3, "fields": ["title"]}'""",
        flush=True,
    )
