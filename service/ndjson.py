"""Lines of a body that is read as it comes, so that its length costs no memory."""

import asyncio
from collections.abc import AsyncIterator
from typing import cast

from starlette.types import Receive

from service.errors import BodyTooLargeError, ClientGone, SlowBodyError

READ_TIMEOUT_S = 10.0
"""How long the next part of a body may take."""


class LineSplitter:
    """Puts lines together from parts of a body; of one that is too long it keeps a byte more than it may have."""

    def __init__(self, max_line_bytes: int) -> None:
        """Start before the first line; `max_line_bytes` does not count the line's end."""
        self._kept = max_line_bytes + 1
        self._rest = bytearray()

    def feed(self, part: bytes) -> list[bytes]:
        """The lines that end in the next part, without their ends."""
        *ended, rest = part.split(b"\n")
        lines = []
        for end in ended:
            self._add(end)
            lines.append(bytes(self._rest).removesuffix(b"\r"))
            self._rest.clear()
        self._add(rest)
        return lines

    def end(self) -> list[bytes]:
        """The last line, where it has no end."""
        return [bytes(self._rest)] if self._rest else []

    def _add(self, more: bytes) -> None:
        self._rest += more[: self._kept - len(self._rest)]


async def read_lines(receive: Receive, *, max_bytes: int, max_line_bytes: int) -> AsyncIterator[list[bytes]]:
    """The lines of a request's body, as many at a time as come together; cut lines are a byte over the limit.

    Raises:
        BodyTooLargeError: more than `max_bytes` have come in.
        SlowBodyError: the next part did not come in time.
        ClientGone: the connection was closed before all of it was in.
    """
    splitter, count, more = LineSplitter(max_line_bytes), 0, True
    while more:
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                message = await receive()
        except TimeoutError as error:
            raise SlowBodyError(f"after {count} bytes nothing came for {READ_TIMEOUT_S:g} s") from error
        if message["type"] == "http.disconnect":
            raise ClientGone("the connection was closed")
        part = cast("bytes", message.get("body", b""))
        count += len(part)
        if count > max_bytes:
            raise BodyTooLargeError(f"the body has more than the {max_bytes} bytes that are read at most")
        more = message.get("more_body", False)
        yield splitter.feed(part) + ([] if more else splitter.end())
