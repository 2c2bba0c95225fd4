"""What the engine and its front processes say to each other: frames on a Unix stream socket of each pair.

    front                                        engine
    HELLO ─────────────────────────────────────> it accepts connections now
    <───────────────────────────────── TOKENIZER which queries are tokenised with from now on
    REQUEST number, origin, token ids, body ───> parse, admit, batch, encode, search
    <─────────── ANSWER number, ids, scores, … or REFUSAL number, problem
    CANCEL number ─────────────────────────────> its client has gone
    CONNECTION number, bytes ──────────────────> a client that the engine is to answer; its socket comes beside this
    <──────────────────────────────────── PING   PONG ──> it still turns
    <─────────────────────── DRAIN, later STOP   close connections, then end

A frame is the length of its payload, its kind and a number, little-endian, then the payload. Both ends are processes of
one service, so a frame that is none is a fault of ours, and ends the link.
"""

import asyncio
import struct
from collections.abc import Iterator
from dataclasses import astuple
from enum import IntEnum
from typing import Any, NamedTuple, cast

import numpy as np
import orjson

from service.answer import Answer, StageTimes
from service.errors import RequestError
from service.origin import Origin
from service.query_tokenizer import Prepared

_FRAME = struct.Struct("<IBQ")
_LENGTH = struct.Struct("<I")
MAX_PAYLOAD_BYTES = 16_777_216
"""A body of the largest size and a thousand ads with all their fields are far below."""


class Kind(IntEnum):
    """What a frame is."""

    HELLO = 1
    TOKENIZER = 2
    REQUEST = 3
    ANSWER = 4
    REFUSAL = 5
    CANCEL = 6
    CONNECTION = 7
    PING = 8
    PONG = 9
    DRAIN = 10
    STOP = 11


class Frame(NamedTuple):
    """One message."""

    kind: Kind
    number: int
    """Of the request or connection that it is about; 0 where it is about neither."""
    payload: bytes


def frame_bytes(kind: Kind, number: int = 0, *payload: bytes) -> bytes:
    """A frame as it travels; the payload may come in parts."""
    return b"".join((_FRAME.pack(sum(map(len, payload)), kind, number), *payload))


class FrameReader:
    """Makes frames of bytes, however these are cut."""

    def __init__(self) -> None:
        self._unread = b""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are whole now.

        Raises:
            ValueError: what came is no frame.
        """
        data = self._unread + data if self._unread else data
        start = 0
        while len(data) - start >= _FRAME.size:
            length, kind, number = _FRAME.unpack_from(data, start)
            if length > MAX_PAYLOAD_BYTES:
                raise ValueError(f"a frame of {length:,} bytes; at most {MAX_PAYLOAD_BYTES:,} are sent")
            end = start + _FRAME.size + length
            if end > len(data):
                break
            yield Frame(Kind(kind), number, data[start + _FRAME.size : end])
            start = end
        self._unread = data[start:]


class Link(asyncio.Protocol):
    """One end of the socket; subclasses say what becomes of frames, and of the end."""

    def __init__(self) -> None:
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket."""
        self._transport = cast("asyncio.Transport", transport)

    def send(self, kind: Kind, number: int = 0, *payload: bytes) -> None:
        """Send a frame; nothing once the other end is gone."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame_bytes(kind, number, *payload))

    def close(self) -> None:
        """End the link."""
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Take bytes. A fault in them ends the link: asyncio logs it and calls `connection_lost`."""
        for frame in self._reader.feed(data):
            self.received(frame)

    def received(self, frame: Frame) -> None:
        """Take a frame."""
        raise NotImplementedError


# --- a request ------------------------------------------------------------------------------------------------------


def pack_request(origin: Origin, body: bytes) -> tuple[bytes, ...]:
    """A request, in parts."""
    prepared = origin.prepared
    head = orjson.dumps(
        (
            origin.caller,
            origin.arrived,
            origin.release,
            origin.traceparent,
            None if prepared is None else list(prepared),
        )
    )
    return _LENGTH.pack(len(head)), head, body


def unpack_request(payload: bytes) -> tuple[Origin, bytes]:
    """Its origin and body."""
    end = _LENGTH.size + _LENGTH.unpack_from(payload)[0]
    caller, arrived, release, traceparent, prepared = orjson.loads(payload[_LENGTH.size : end])
    origin = Origin(caller, arrived, release, traceparent, None if prepared is None else Prepared(*prepared))
    return origin, payload[end:]


# --- an answer ------------------------------------------------------------------------------------------------------


def pack_answer(answer: Answer) -> bytes:
    """An answer; ids and values are JSON already, and JSON in one line has no line feed."""
    head = orjson.dumps(
        (
            (answer.request_id, answer.release, answer.model_version, answer.index_version),
            list(answer.columns),
            answer.coverage,
            answer.cached,
            astuple(answer.times),
        )
    )
    scores = np.ascontiguousarray(answer.scores, dtype=np.float32).tobytes()
    lines = b"\n".join([*answer.json_ids, *(value for column in answer.columns.values() for value in column)])
    return b"".join((_LENGTH.pack(len(head)), head, _LENGTH.pack(len(scores)), scores, lines))


def unpack_answer(payload: bytes) -> Answer:
    """What was packed."""
    end = _LENGTH.size + _LENGTH.unpack_from(payload)[0]
    names, fields, coverage, cached, times = orjson.loads(payload[_LENGTH.size : end])
    begin = end + _LENGTH.size
    end = begin + _LENGTH.unpack_from(payload, end)[0]
    scores = np.frombuffer(payload[begin:end], dtype=np.float32)
    lines, count = payload[end:].split(b"\n") if len(scores) else [], len(scores)
    columns = {name: lines[count * place : count * (place + 1)] for place, name in enumerate(fields, start=1)}
    request_id, release, model_version, index_version = names
    return Answer(
        request_id,
        release,
        model_version,
        index_version,
        lines[:count],
        scores,
        columns,
        coverage,
        cached,
        StageTimes(*times),
    )


# --- a refusal ------------------------------------------------------------------------------------------------------


class RelayedError(RequestError):
    """A refusal by the engine, as a front process answers with it."""

    def __init__(self, said: dict[str, Any]) -> None:
        super().__init__(said["detail"])
        self._headers: dict[str, str] = said["headers"]
        self._details: dict[str, object] = said["details"]
        self.status = said["status"]  # type: ignore[misc]  # which is its class's of every other refusal
        self.problem = said["problem"]  # type: ignore[misc]
        self.title = said["title"]  # type: ignore[misc]
        self.closes_connection = said["closes_connection"]  # type: ignore[misc]

    def headers(self) -> dict[str, str]:
        """As the engine's."""
        return self._headers

    def details(self) -> dict[str, object]:
        """As the engine's."""
        return self._details


def pack_refusal(error: RequestError) -> bytes:
    """All that is answered with."""
    return orjson.dumps(
        {
            "detail": str(error),
            "status": error.status,
            "problem": error.problem,
            "title": error.title,
            "closes_connection": error.closes_connection,
            "headers": error.headers(),
            "details": error.details(),
        }
    )


def unpack_refusal(payload: bytes) -> RelayedError:
    """What was packed."""
    return RelayedError(orjson.loads(payload))
