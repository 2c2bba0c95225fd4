"""Reads ads from a file or a pipe, a piece at a time."""

import gzip
import io
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from client.errors import ClientError

STANDARD_INPUT = Path("-")
LINES_A_PIECE = 500
BYTES_A_PIECE = 4 << 20
"""A piece is one request: small enough that its repetition costs little."""
MAX_LINE_BYTES = 1 << 20
"""Of a service; what is longer is cut a little behind that, so that the service says so."""
_GZIP_MAGIC = b"\x1f\x8b"


class Piece(NamedTuple):
    """Some lines of a feed."""

    first_line: int
    """Its number, from 1."""
    body: bytes
    read_bytes: int
    """How far the file, compressed as it may be, was read up to its end."""


def read_pieces(path: Path) -> Iterator[Piece]:
    """The lines of a file, or of standard input for `-`; gzip is told by its first bytes.

    Raises:
        ClientError: it cannot be read to its end.
    """
    number = 1
    try:
        with io.FileIO(sys.stdin.fileno(), closefd=False) if path == STANDARD_INPUT else path.open("rb", 0) as raw:
            buffered = io.BufferedReader(raw)
            is_gzip = buffered.peek(2)[:2] == _GZIP_MAGIC
            lines = gzip.GzipFile(fileobj=buffered) if is_gzip else buffered
            for held in _together(lines):
                yield Piece(number, b"".join(held), 0 if path == STANDARD_INPUT else buffered.tell())
                number += len(held)
    except (EOFError, zlib.error, OSError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise ClientError(f"{path}: cannot be read after line {number - 1:,} ({reason})") from error


def _together(lines: io.BufferedIOBase) -> Iterator[list[bytes]]:
    """Lines with their ends, as many as make a piece."""
    held: list[bytes] = []
    size = 0
    for line in _lines(lines.readline):
        held.append(line)
        size += len(line)
        if len(held) == LINES_A_PIECE or size >= BYTES_A_PIECE:
            yield held
            held, size = [], 0
    if held:
        yield held


def _lines(readline: Callable[[int], bytes]) -> Iterator[bytes]:
    while line := readline(MAX_LINE_BYTES + 2):
        rest = line
        while len(rest) > MAX_LINE_BYTES + 1 and not rest.endswith(b"\n"):
            rest = readline(MAX_LINE_BYTES + 2)
        yield line if line.endswith(b"\n") else line + b"\n"
