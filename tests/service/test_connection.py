"""The connection's own way for plain requests, on real sockets beside a service that answers at once."""

import asyncio
import contextlib
import gc
import socket
import struct
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
import uvicorn
import uvloop
from uvicorn.server import ServerState

from service.connection import Connection
from service.origin import Origin
from service.service import Service

BODY = b'{"query": "drill"}'
REQUEST = b"POST /retrieve HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
AT_ONCE = struct.pack("ii", 1, 0)
"""For SO_LINGER: closing sends a reset."""


class StandInService:
    """Answers every request with an empty object."""

    draining = False
    settings = SimpleNamespace(limits=SimpleNamespace(max_body_bytes=65_536))

    def shed(self, *_: object) -> None:
        return None

    def handle(self, _body: bytes, _origin: Origin, on_done: Callable[[bytes], None]) -> None:
        on_done(b"{}")


async def refuse(_scope: Any, _receive: Any, _send: Any) -> None:
    raise AssertionError("the request went the general way")


def connecting(state: ServerState, made: Callable[[Connection], object]) -> Callable[[], Connection]:
    """Makes connections to a service that answers at once, and tells of each."""
    config = uvicorn.Config(refuse, lifespan="off", log_config=None)
    config.load()

    def make() -> Connection:
        service = cast("Service", StandInService())
        connection = Connection(service, config=config, server_state=state, app_state={})
        made(connection)
        return connection

    return make


def test_a_kept_connection_whose_next_body_is_on_its_way_is_not_idle(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("service.connection.REST_TIMEOUT_S", 30.0)

    async def ask_twice() -> bytes:
        made: list[Connection] = []
        server = await asyncio.get_running_loop().create_server(connecting(ServerState(), made.append), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        with contextlib.closing(server), contextlib.closing(writer):
            async with asyncio.timeout(30):
                writer.write(REQUEST)
                await reader.readuntil(b"{}")
                writer.write(REQUEST[:-1])
                [connection] = made
                while connection._began is None:
                    await asyncio.sleep(0.005)
                connection._idle_since -= 3_600
                connection.timeout_keep_alive_handler()
                writer.write(REQUEST[-1:])
                answer = await reader.readuntil(b"{}")
            assert connection.timeout_keep_alive_task is not None
            return answer

    assert uvloop.run(ask_twice()).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("closing", ["closed", "reset"])
def test_a_connection_that_is_gone_is_freed_at_once(closing: str):
    """Not when it would have been idle for too long: clients that come and go fast would fill the memory."""

    async def come_and_go() -> int:
        state, made = ServerState(), list[weakref.ref[Connection]]()
        make = connecting(state, lambda connection: made.append(weakref.ref(connection)))
        loop = asyncio.get_running_loop()
        server = await loop.create_server(make, "127.0.0.1", 0)
        for _ in range(5):
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(REQUEST)
            assert await reader.readuntil(b"{}")
            if closing == "reset":
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
            writer.close()
            await writer.wait_closed()
        async with asyncio.timeout(30):
            while state.connections:
                await asyncio.sleep(0.005)
        server.close()
        await server.wait_closed()
        gc.collect()
        return sum(connection() is not None for connection in made)

    assert uvloop.run(come_and_go()) == 0
