"""Closing the listener under traffic; the rest of draining is in tests/e2e/test_lifecycle.py."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, cast

import pytest
import uvicorn
import uvloop

from service.draining import DrainingServer
from service.service import Service

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


async def answer(scope: Any, receive: Any, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


async def listening_server(listener: socket.socket) -> DrainingServer:
    config = uvicorn.Config(answer, lifespan="off", log_config=None)
    config.load()
    server = DrainingServer(config, cast("Service", None))
    server.lifespan = config.lifespan_class(config)
    await server.startup([listener])
    return server


def connect(listener: socket.socket) -> socket.socket:
    """As the kernel makes it, without the event loop that is to accept it."""
    return socket.create_connection(listener.getsockname(), timeout=10)


def test_requests_of_connections_that_were_not_accepted_yet_are_answered(listener: socket.socket):
    async def stop_under_traffic() -> list[bytes]:
        server = await listening_server(listener)
        clients = [connect(listener) for _ in range(20)]
        for client in clients:
            client.sendall(REQUEST)
        await server.shutdown([listener])
        with contextlib.ExitStack() as stack:
            return [stack.enter_context(client).recv(1_000) for client in clients]

    answers = uvloop.run(stop_under_traffic())
    assert {first.split(b"\r\n")[0] for first in answers} == {b"HTTP/1.1 200 OK"}


def test_a_connection_without_a_request_does_not_keep_the_server(listener: socket.socket):
    async def stop_beside_an_idle_client() -> bytes:
        server = await listening_server(listener)
        with connect(listener) as client:
            await asyncio.wait_for(server.shutdown([listener]), 30)
            return client.recv(1_000)

    assert uvloop.run(stop_beside_an_idle_client()) == b""


def test_nobody_can_connect_after_it(listener: socket.socket):
    async def stop() -> None:
        server = await listening_server(listener)
        address = listener.getsockname()
        await server.shutdown([listener])
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, timeout=10)

    uvloop.run(stop())
