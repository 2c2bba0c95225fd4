"""One connection of the public listener: uvicorn's, with a direct way for the request that it is there for.

    bytes ──> one plain POST /retrieve, whole? ──yes──> Service.handle ──> answer in one write
                        └─no──> uvicorn's parser ──> FastAPI

The direct way spares a request the parser's callbacks, an ASGI task and the framework (docs/experiments.md, "one
request"). It takes only what cannot be understood in two ways; all else, such as chunked bodies, `Expect`, other
paths or what is not HTTP, goes the general way and meets the same rules there. `service.admin_connection` has such a
way for another request.
"""

import asyncio
import re
from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus
from time import perf_counter
from typing import Any, Protocol, cast

from service.errors import ClientGone, RequestError
from service.lingering import LingeringProtocol
from service.origin import OnDone, Origin
from service.plain_request import MAX_PLAIN_HEADER_BYTES, REQUEST_LINE, Head, read_head
from service.problems import MEDIA_TYPE, error_body, problem_body
from service.settings import LimitsSettings

CONNECTION_KEY = "hlm.connection"
"""Where a request's scope keeps the connection that it came by."""
UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)
HEADER_TIMEOUT_S = 10.0
"""How long a request's header may take, and a new connection's first one."""
MAX_HEADER_BYTES = 65_536
READ_TIMEOUT_S = 20.0
"""How long an answer may wait for its client to read on."""
MAX_HELD_BYTES = 65_536
"""Of requests that were sent before the one in progress was answered; then the client has to wait."""
REST_TIMEOUT_S = 0.1
"""For the rest of a body that came in part; after it the general way takes over, with its own limits."""


class Limited(Protocol):
    """Settings, as far as a connection goes by them."""

    @property
    def limits(self) -> LimitsSettings:
        """What a caller may ask for."""


class Work(Protocol):
    """A request that is being answered."""

    def resolve(self, outcome: RequestError, /) -> None:
        """Give it up."""


class Handler(Protocol):
    """Who answers plain requests: the service, or a front process that asks it."""

    @property
    def settings(self) -> Limited:
        """Among them the longest body."""

    @property
    def draining(self) -> bool:
        """Whether connections are to close after their answer."""

    def shed(self, body: bytes, caller: str) -> RequestError | None:
        """Why a request is refused at once; None where it is not."""

    def handle(self, body: bytes, origin: Origin, on_done: OnDone) -> Work | None:
        """Answer one; None where `on_done` has been called already."""


class DirectConnection(LingeringProtocol):
    """A connection that answers plain requests itself, and tells a request at once when its client goes away."""

    on_loss: Callable[[], None] | None = None
    """Called when the client goes away during a request that went the general way."""

    def __init__(self, **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self._in_progress = False
        self._work: Work | None = None
        self._held = b""
        self._began: float | None = None
        self._rest_timer: asyncio.TimerHandle | None = None
        self._read_timer: asyncio.TimerHandle | None = None
        self._header_timer: asyncio.TimerHandle | None = None
        self._header_bytes = self._unread_header_bytes = 0
        self._waiting_for_header = True
        self._in_message = False
        self._closes = False
        self._idle_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to wait for a first request."""
        super().connection_made(transport)
        self._peer = self.client[0] if self.client else ""
        self._expect_header()
        self._go_on()

    def begin_with(self, data: bytes) -> None:
        """Take what another process has read from it, before it is connected."""
        self._held = data

    def connection_lost(self, exc: Exception | None) -> None:
        """Give up the request in progress, if any."""
        self._header_complete()
        self._end_wait_for_rest()
        self._cancel_read_timer()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()  # which uvicorn does not where the client reset the connection
        if self.on_loss is not None:
            self.on_loss()
        if self._work is not None:
            self._work.resolve(ClientGone("the connection was closed"))

    def data_received(self, data: bytes) -> None:
        """Take bytes and answer what is whole."""
        if self._held:
            data = self._held + data
            self._held = b""
        if self._in_progress or self.flow.write_paused:  # no further answers for a client that does not read
            self._held = data
            if len(data) > MAX_HELD_BYTES:
                self.flow.pause_reading()
        elif not self._take_directly(data):
            self._end_wait_for_rest()
            self._take_generally(data)

    # --- the direct way -------------------------------------------------------------------------------------------

    def _take_directly(self, data: bytes) -> bool:
        """Start to answer a plain request, or wait for the rest of its body; False where it is something else."""
        line_end = self._plain_line(data)
        if not line_end or self._in_message or self._header_bytes or self._draining:
            return False
        if self.cycle is not None and not self.cycle.response_complete:
            return False
        end = data.find(b"\r\n\r\n", 0, MAX_PLAIN_HEADER_BYTES)
        head = read_head(data[line_end : end + 2]) if end >= 0 else None
        if head is None or not self._is_plain(head):
            return False
        whole = end + 4 + head.content_length
        self._header_complete()
        if len(data) < whole:
            self._wait_for_rest(data)
            return True
        arrived = self._began or perf_counter()
        self._end_wait_for_rest()
        self._held = data[whole:]
        self._in_progress = True
        work = self._answer(data[:line_end], head, data[end + 4 : whole], arrived)
        self._work = work if self._in_progress else None
        return True

    @property
    def _draining(self) -> bool:
        """Whether it is to close after its next answer, which then goes the general way."""
        return False

    def _plain_line(self, data: bytes) -> int:
        """Where the request line of one that may be plain ends; 0 where another request, or a part of one, begins."""
        raise NotImplementedError

    def _is_plain(self, head: Head) -> bool:
        """Whether one with such a header is answered here."""
        raise NotImplementedError

    def _answer(self, line: bytes, head: Head, body: bytes, arrived: float) -> Work | None:
        """Have `_reply` called, now or later; gives what there is to give up until then."""
        raise NotImplementedError

    def _wait_for_rest(self, data: bytes) -> None:
        """Keep what came of a request; the time counts from its first part, however the others drip in."""
        self._held = data
        if self._began is None:
            self._began = perf_counter()
            self._rest_timer = self.loop.call_later(REST_TIMEOUT_S, self._give_up_waiting)

    def _end_wait_for_rest(self) -> None:
        self._began = None
        if self._rest_timer is not None:
            self._rest_timer.cancel()
            self._rest_timer = None

    def _give_up_waiting(self) -> None:
        self._end_wait_for_rest()
        data, self._held = self._held, b""
        self._take_generally(data)

    def _reply(self, outcome: bytes | RequestError) -> None:
        self._in_progress = False
        self._work = None
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if isinstance(outcome, RequestError):
            self._write(*_refusal(outcome), closes=self._closes, lingers=outcome.closes_connection)
        else:
            self._write(_head(200, "application/json", len(outcome)), outcome, closes=self._closes)

    def _write(self, head: bytes, body: bytes, *, closes: bool, lingers: bool = False) -> None:
        self._send(head, body)
        if lingers:  # what came behind the request is never read, and would reset the answer
            self.linger()
            return
        if closes or self._draining:
            self.transport.close()
            return
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._expect_more()
        if self._held:
            self.loop.call_soon(self._go_on)

    def _send(self, head: bytes, body: bytes) -> None:
        defaults = b"".join(b"%s: %s\r\n" % field for field in self.server_state.default_headers)
        self.transport.write(b"%s%s\r\n%s" % (head, defaults, body))

    def _expect_more(self) -> None:
        left_s = self._idle_since + self.timeout_keep_alive - self.loop.time()
        self.timeout_keep_alive_task = self.loop.call_later(max(0.0, left_s), self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that has been idle for long; one timer runs on over many requests."""
        self.timeout_keep_alive_task = None
        if self._in_progress or self._began is not None:  # the answer starts another timer
            return
        if self._idle_since + self.timeout_keep_alive > self.loop.time():
            self._expect_more()
        elif self.flow.write_paused:  # a client that does not read would keep it open while it closes
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def _go_on(self) -> None:
        """Take what came during the last request, once its client reads answers."""
        if self._held and not self._in_progress and not self.flow.write_paused and not self.ending:
            self.flow.resume_reading()
            self.data_received(b"")

    def pause_writing(self) -> None:
        """Wait for the client to read, but not for ever."""
        super().pause_writing()
        self._read_timer = self.loop.call_later(READ_TIMEOUT_S, self.transport.abort)

    def _cancel_read_timer(self) -> None:
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None

    def resume_writing(self) -> None:
        """Go on when the client reads again."""
        self._cancel_read_timer()
        super().resume_writing()
        self._go_on()

    def shutdown(self) -> None:
        """Close, after the answer to the request in progress."""
        if self._in_progress:
            self._closes = True
        else:
            super().shutdown()

    # --- the general way ------------------------------------------------------------------------------------------

    def _take_generally(self, data: bytes) -> None:
        """Feed the parser, without the offer to go on in HTTP/2 that Java's client makes with every request.

        The parser would stop at such a header and lose the body (uvicorn #2722); a server may ignore the offer.
        """
        begun = self._in_message
        if not begun:  # never within a body: it would grow beyond its length, and its end become a request
            head, separator, rest = data.partition(b"\r\n\r\n")
            if separator and UPGRADE.search(head):
                data = UPGRADE.sub(b"\r\nX-Upgrade:", head) + separator + rest
        waited = begun and self._waiting_for_header
        super().data_received(data)
        if self._in_message and self._waiting_for_header:
            self._limit_unread_header(len(data if waited else data.rpartition(b"\r\n\r\n")[2]))
        if self._header_timer is None and not self._owes_answer() and not self.ending:
            self._expect_header()

    def _expect_header(self) -> None:
        self._header_timer = self.loop.call_later(HEADER_TIMEOUT_S, self._header_late)

    def _header_late(self) -> None:
        self._header_timer = None
        if self.cycle is not None and not self.cycle.response_complete:  # an earlier request is still being answered
            self._expect_header()
        else:
            self.transport.close()

    def _limit_unread_header(self, more_bytes: int) -> None:
        """Limit a field that does not end, of which `on_header` learns nothing."""
        self._unread_header_bytes += more_bytes
        if self._unread_header_bytes > MAX_HEADER_BYTES and not self.ending:
            self.send_400_response(f"the header has more than {MAX_HEADER_BYTES} bytes")

    def _owes_answer(self) -> bool:
        """Whether it is not the client for whom the connection waits."""
        return not self._waiting_for_header and self.cycle is not None and not self.cycle.response_complete

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field, and drop one that follows a chunked body; called by the parser."""
        self._header_bytes += len(name) + len(value) + len(b": \r\n")
        if self._header_bytes > MAX_HEADER_BYTES:
            raise ValueError(f"the header has more than {MAX_HEADER_BYTES} bytes")  # ends the parsing with a 400
        if self._waiting_for_header:
            super().on_header(name, value)

    def on_message_begin(self) -> None:
        """Let the request know its connection; called by the parser."""
        super().on_message_begin()
        self._waiting_for_header = self._in_message = True
        cast("dict[str, object]", self.scope)[CONNECTION_KEY] = self

    def on_headers_complete(self) -> None:
        """Stop limiting the header; called by the parser."""
        self._header_complete()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """From here on another request may come; called by the parser."""
        self._in_message = False
        self._header_bytes = 0
        super().on_message_complete()

    def _header_complete(self) -> None:
        self._waiting_for_header = False
        self._header_bytes = self._unread_header_bytes = 0
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP with a problem document, as everything else is answered."""
        body = problem_body("invalid_http", "The request is not HTTP", 400, msg, {})
        self._send(_head(400, MEDIA_TYPE, len(body)) + b"connection: close\r\n", body)
        self.linger()


class Connection(DirectConnection):
    """A connection of the public listener: `POST /retrieve` is answered directly."""

    def __init__(self, service: Handler, **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self._service = service

    @property
    def _draining(self) -> bool:
        return self._service.draining

    def _plain_line(self, data: bytes) -> int:
        return len(REQUEST_LINE) if data.startswith(REQUEST_LINE) else 0

    def _is_plain(self, head: Head) -> bool:
        return head.content_length <= self._service.settings.limits.max_body_bytes

    def _answer(self, line: bytes, head: Head, body: bytes, arrived: float) -> Work | None:  # noqa: ARG002 - it is one
        caller = head.caller or self._peer
        refusal = self._service.shed(body, caller) if head.traceparent is None else None
        if refusal is not None:
            self._reply(refusal)
            return None
        origin = Origin(caller, arrived, head.release, head.traceparent)
        return self._service.handle(body, origin, self._reply)


@lru_cache(maxsize=64)  # one refusal answers many requests under overload
def _refusal(error: RequestError) -> tuple[bytes, bytes]:
    """Header and body."""
    fields = "".join(f"{name.lower()}: {value}\r\n" for name, value in error.headers().items())
    body = error_body(error)
    return _head(error.status, MEDIA_TYPE, len(body)) + fields.encode(), body


@lru_cache(maxsize=256)
def _status_line(status: int, media_type: str) -> bytes:
    phrase = "Client Closed Request" if status == ClientGone.status else HTTPStatus(status).phrase
    return f"HTTP/1.1 {status} {phrase}\r\ncontent-type: {media_type}\r\n".encode()


def _head(status: int, media_type: str, length: int) -> bytes:
    return b"%scontent-length: %d\r\n" % (_status_line(status, media_type), length)
