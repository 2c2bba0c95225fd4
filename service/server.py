"""Runs the service: listen, load, answer, drain, stop."""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import cast

import uvicorn

from artifacts.errors import HlmError
from service.app import create_app
from service.connection import Connection
from service.errors import StartupError
from service.logs import configure_logging, log_loop_exception
from service.release import Release
from service.service import Service
from service.settings import ServerSettings, Settings

LAST_REQUESTS_S = 0.2
"""Between the end of listening and the closing of connections that have no request in progress."""

logger = logging.getLogger(__name__)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, which end it cleanly.

    Raises:
        HlmError: the address is taken, or the release cannot be served.
    """
    configure_logging(settings.server)
    listener = bind(settings.server)
    service = Service(settings)
    config = uvicorn.Config(
        create_app(service),
        http=partial(Connection, service),  # type: ignore[arg-type]  # only called
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
    asyncio.get_running_loop().set_exception_handler(log_loop_exception)
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
