"""Reading a request's body, message by message."""

import asyncio

import pytest
from starlette.types import Message

from service import routes
from service.errors import BodyTooLargeError, ClientGone, SlowBodyError
from service.routes import read_body

SCOPE = {"headers": []}


def read(*messages: Message, max_bytes: int = 100) -> bytes:
    """Read a body that comes in these messages, after which nothing comes any more."""
    left = list(messages)

    async def receive() -> Message:
        return left.pop(0) if left else await asyncio.get_running_loop().create_future()

    return asyncio.run(read_body(SCOPE, receive, max_bytes))


def part(body: bytes, *, more: bool) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


def test_parts_are_put_together():
    assert read(part(b"ab", more=True), part(b"cd", more=False)) == b"abcd"


def test_too_many_bytes_are_refused_before_the_rest_is_read():
    with pytest.raises(BodyTooLargeError):
        read(part(b"a" * 101, more=True))


def test_a_lost_connection_is_not_waited_for():
    with pytest.raises(ClientGone):
        read(part(b"a", more=True), {"type": "http.disconnect"})


def test_a_body_that_stops_coming_is_given_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(routes, "BODY_TIMEOUT_S", 0.0)
    with pytest.raises(SlowBodyError, match="only 1 bytes came"):
        read(part(b"a", more=True))
