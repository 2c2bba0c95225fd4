"""Closing a connection so that its client gets the answer.

Where the answer came before the end of the body, closing at once would reset the connection, and the reset may destroy
the answer before the client has read it (RFC 9112, 9.6). So only the sending half is closed, and what still comes is
read and thrown away for a while.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LINGER_S = 2.0
"""How long a client may go on sending after its answer."""


class LingeringProtocol(HttpToolsProtocol):
    """uvicorn's connection, which lingers instead of closing while a body is still coming."""

    _lingers = False

    @property
    def ending(self) -> bool:
        """Whether nothing more can be answered."""
        return self._lingers or self.transport.is_closing()

    def on_headers_complete(self) -> None:
        """Let the request close its connection in this way; called by the parser."""
        super().on_headers_complete()
        if self.cycle is not None:
            self.cycle.transport = _Transport(self)  # type: ignore[assignment]  # only some of it is called

    def on_response_complete(self) -> None:
        """End the connection where the answer came before the end of the body, which nobody would read."""
        if not self.pipeline and self.cycle.response_complete and self.cycle.more_body:
            self.linger()
        if not self._lingers:
            super().on_response_complete()

    def close(self) -> None:
        """Close, at once if no body is still coming."""
        if self.cycle is not None and self.cycle.more_body:
            self.linger()
        else:
            self.transport.close()

    def linger(self) -> None:
        """Close once the client has, or has had time to."""
        if self.ending:
            return
        self._lingers = True
        self.transport.write_eof()
        self.transport.set_protocol(_Discarding(self, self.loop.call_later(LINGER_S, self.transport.abort)))
        self.flow.resume_reading()


class _Transport:
    """A connection's transport, as its requests see it."""

    def __init__(self, connection: LingeringProtocol) -> None:
        self._connection = connection

    def close(self) -> None:
        self._connection.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection.transport, name)


class _Discarding(asyncio.Protocol):
    """Stands in for a connection that has answered; that of `asyncio.Protocol` closes when the client does."""

    def __init__(self, connection: LingeringProtocol, timer: asyncio.TimerHandle) -> None:
        self._connection = connection
        self._timer = timer

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._connection.connection_lost(exc)
