"""Runs the service: listen, load, answer, drain, stop."""

import asyncio
import socket
from functools import partial
from pathlib import Path
from typing import Any

from artifacts.errors import HlmError
from service.admin import admin_listener
from service.app import create_app
from service.connection import Connection
from service.draining import DrainingServer, server_config
from service.execution_providers import check_one_build
from service.fronts import Fronts
from service.listener import bind, url_of
from service.logs import configure_logging, log_loop_exception
from service.service import Service
from service.settings import load_settings
from service.watch import ConfigWatch


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
    server = DrainingServer(server_config(settings.server, create_app(service), partial(Connection, service)), service)
    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        runner.run(_run(server, service, listener, watch))


async def _run(server: DrainingServer, service: Service, listener: socket.socket, watch: ConfigWatch | None) -> None:
    asyncio.get_running_loop().set_exception_handler(log_loop_exception)
    fronts, url = None, url_of(listener)
    if service.settings.server.front_processes:
        server.ahead = fronts = Fronts(service, server, listener)
    serving = asyncio.create_task(server.serve(sockets=[] if fronts else [listener]))
    starting = asyncio.create_task(_start(service, fronts))
    watching: asyncio.Task[None] | None = None
    try:
        async with admin_listener(service.settings.server, service.releases, service.changes):
            await asyncio.wait((serving, starting), return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                await starting
                if watch is not None:
                    watching = asyncio.create_task(watch.run())
                if not server.should_exit:  # a signal may end it before the release is loaded
                    _announce(service, url)
            await serving
    except HlmError:
        server.should_exit = True
        await serving
        raise
    finally:
        starting.cancel()
        if watching is not None:
            watching.cancel()
        if fronts is not None:
            await fronts.stop()
        await service.stop()


async def _start(service: Service, fronts: Fronts | None) -> None:
    """Load the release; front processes come first, so that the service can say meanwhile that it is not ready."""
    if fronts is not None:
        await fronts.start()
    await service.start()


def _announce(service: Service, url: str) -> None:
    release = service.release
    assert release is not None
    print(  # noqa: T201 - what the person who started it wants to see
        f"Serving release {release.name} on {url}: {release.ad_index.manifest.ad_count:,} ads, "
        f"{release.model_version}, {release.index_version}.\nTry:\n"
        f"  curl -s {url}/retrieve -H 'Content-Type: application/json' "
        """-d '{"query": "cordless drill 18v", "top_k": 3, "fields": ["title"]}'""",
        flush=True,
    )
