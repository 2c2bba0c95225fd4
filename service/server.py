"""Runs the service: listen, load, answer, drain, stop."""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, cast

import uvicorn

from artifacts.errors import HlmError
from service.admin import admin_listener
from service.app import create_app
from service.connection import Connection
from service.execution_providers import check_one_build
from service.listener import bind, url_of
from service.logs import configure_logging, log_loop_exception
from service.service import Service
from service.settings import load_settings
from service.watch import ConfigWatch

RETRY_S = 0.5
"""Before connections are accepted again that could not be."""
LAST_REQUESTS_S = 0.2
"""Between the end of listening and the closing of connections that have no request in progress."""

logger = logging.getLogger(__name__)


def serve(config: Path | None, overrides: dict[str, Any]) -> None:
    """Serve until SIGTERM or SIGINT, which end it cleanly.

    Args:
        config: YAML file, watched while serving, or None.
        overrides: nested settings from the command line, stronger than the file.

    Raises:
        HlmError: a setting is wrong, the address is taken, or the release cannot be served.
    """
    read = partial(load_settings, config, overrides)
    settings = read()
    configure_logging(settings.server)
    check_one_build()
    listener = bind(settings.server.host, settings.server.port, "server.host, server.port")
    service = Service(settings)
    watch = ConfigWatch(config, read, settings, service.releases) if config is not None else None
    server = DrainingServer(_uvicorn_config(service), service)
    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        runner.run(_run(server, service, listener, watch))


def _uvicorn_config(service: Service) -> uvicorn.Config:
    settings = service.settings.server
    return uvicorn.Config(
        create_app(service),
        http=partial(Connection, service),  # type: ignore[arg-type]  # only called
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


async def _run(server: "DrainingServer", service: Service, listener: socket.socket, watch: ConfigWatch | None) -> None:
    asyncio.get_running_loop().set_exception_handler(log_loop_exception)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    loading = asyncio.create_task(service.start())
    watching: asyncio.Task[None] | None = None
    try:
        async with admin_listener(service.settings.server, service.releases, service.changes):
            await asyncio.wait((serving, loading), return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                await loading
                if watch is not None:
                    watching = asyncio.create_task(watch.run())
                if not server.should_exit:  # a signal may end it before the release is loaded
                    _announce(service, listener)
            await serving
    except HlmError:
        server.should_exit = True
        await serving
        raise
    finally:
        loading.cancel()
        if watching is not None:
            watching.cancel()
        await service.stop()


class DrainingServer(uvicorn.Server):
    """On SIGTERM: not ready, answer for the grace time, finish what is in flight, close.

    SIGINT skips the grace time, and a second signal of either kind ends it as well.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._accepting: set[asyncio.Task[object]] = set()

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

    def _accept_waiting(self, listener: socket.socket) -> None:
        """Take all connections that wait to be accepted."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                connection, _ = listener.accept()
                connection.setblocking(False)
                task = loop.create_task(loop.connect_accepted_socket(self._make_protocol, connection))
                self._accepting.add(task)
                task.add_done_callback(self._accepting.discard)
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:  # most likely too many open files
            logger.exception("connections cannot be accepted (%s); trying again in %g s", error.strerror, RETRY_S)
            loop.remove_reader(listener)
            loop.call_later(RETRY_S, self._listen, listener)

    def _listen(self, listener: socket.socket) -> None:
        if listener.fileno() >= 0:  # not closed meanwhile
            asyncio.get_running_loop().add_reader(listener, self._accept_waiting, listener)

    def _make_protocol(self) -> asyncio.Protocol:
        make = cast("Callable[..., asyncio.Protocol]", self.config.http_protocol_class)
        return make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)


def _announce(service: Service, listener: socket.socket) -> None:
    release = service.release
    assert release is not None
    url = url_of(listener)
    print(  # noqa: T201 - what the person who started it wants to see
        f"Serving release {release.name} on {url}: {release.ad_index.manifest.ad_count:,} ads, "
        f"{release.model_version}, {release.index_version}.\nTry:\n"
        f"  curl -s {url}/retrieve -H 'Content-Type: application/json' "
        """-d '{"query": "cordless drill 18v", "top_k": 3, "fields": ["title"]}'""",
        flush=True,
    )
