"""Reads files of JSON lines, gzip or not, one bad line never in the way of the good ones."""

import codecs
import gzip
import io
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Generic, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from rich.markup import escape

from index.errors import FeedError
from terminal import Advance, console, progress

MAX_LINE_BYTES = 1 << 20
"""Room for an embedding of 4,096 numbers and long texts; longer lines are skipped without being held in memory."""

SHOWN_LINES = 20
"""Bad lines printed one by one; the rest are counted by reason."""

_GZIP_MAGIC = b"\x1f\x8b"
_LINES_PER_REPORT = 1000

ModelT = TypeVar("ModelT", bound=BaseModel)


class LineReader(Generic[ModelT]):
    """Iterates once over the usable lines of a file, reporting and counting those it leaves out."""

    def __init__(self, path: Path, model: type[ModelT], id_field: str, *, strict: bool = False) -> None:
        """Prepare to read.

        Args:
            path: the file; gzip is told by its first bytes, not by its name.
            model: what a line describes.
            id_field: of the model; its values are distinct, a later line with an earlier one's is bad.
            strict: stop at the first bad line instead of skipping it.
        """
        self._path = path
        self._model = model
        self._id_field = id_field
        self._strict = strict
        self._seen: set[str] = set()
        self.skipped: Counter[str] = Counter()
        """Bad lines so far, by reason."""
        self.line_count = 0
        """Lines read so far, good and bad."""

    def __iter__(self) -> Iterator[tuple[int, ModelT]]:
        """Yield (line number from 1, what it describes).

        Raises:
            FeedError: the file cannot be read to its end, or a line is bad and `strict` is set.
        """
        for raw in self._raw_lines():
            self.line_count += 1
            if self.line_count == 1:
                raw = raw.removeprefix(codecs.BOM_UTF8)  # noqa: PLW2901 - some editors write one
            try:
                parsed = parse_line(raw, self._model)
            except ValueError as error:
                self.skip(self.line_count, str(error))
                continue
            own_id = getattr(parsed, self._id_field)
            if own_id in self._seen:
                self.skip(self.line_count, f"duplicate {self._id_field}")
                continue
            self._seen.add(own_id)
            yield self.line_count, parsed

    def skip(self, line: int, reason: str) -> None:
        """Count a bad line; also for a caller that finds a fault this reader cannot see.

        Raises:
            FeedError: `strict` is set.
        """
        if self._strict:
            raise FeedError(f"{self._path}: line {line}: {reason}")
        self.skipped[reason] += 1
        shown = self.bad_count
        if shown <= SHOWN_LINES:
            console.print(f"[yellow]{escape(self._path.name)} line {line}:[/] {reason}", soft_wrap=True)
        if shown == SHOWN_LINES:
            console.print("[yellow]further bad lines are counted, not shown[/]")

    @property
    def bad_count(self) -> int:
        """Bad lines so far."""
        return self.skipped.total()

    def _raw_lines(self) -> Iterator[bytes]:
        """Lines without their ends; an over-long one comes cut, one byte over the limit."""
        try:
            with self._path.open("rb") as file:
                is_gzip = file.read(2) == _GZIP_MAGIC
                file.seek(0)
                with progress(f"Reading {self._path.name}", self._path.stat().st_size, "bytes") as advance:
                    yield from _split(gzip.GzipFile(fileobj=file) if is_gzip else file, file, advance)
        except EOFError as error:
            raise FeedError(
                f"{self._path}: the gzip stream ends in the middle, after line {self.line_count}; is the copy complete?"
            ) from error
        except zlib.error as error:
            raise FeedError(f"{self._path}: damaged gzip stream after line {self.line_count}: {error}") from error
        except OSError as error:
            raise FeedError(f"{self._path}: cannot be read after line {self.line_count}: {error}") from error


def parse_line(raw: bytes, model: type[ModelT]) -> ModelT:
    """Turn one line into what it describes.

    Raises:
        ValueError: it cannot be; what is wrong with it, in few distinct words.
    """
    if len(raw) > MAX_LINE_BYTES:
        raise ValueError(f"longer than {MAX_LINE_BYTES} bytes")
    try:
        raw.decode()
        line = orjson.loads(raw)
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    except orjson.JSONDecodeError:
        raise ValueError("not JSON") from None
    if not isinstance(line, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - a value that was read, not a caller's mistake
    try:
        parsed = model.model_validate(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"{first['loc'][0]}: {first['msg'][0].lower()}{first['msg'][1:]}") from None
    try:
        orjson.dumps(line)
    except TypeError:  # what can be read at 1,024 levels of nesting can be written at 254
        raise ValueError("nested too deeply") from None
    return parsed


def _split(lines: io.BufferedIOBase, file: io.BufferedIOBase, advance: Advance) -> Iterator[bytes]:
    """Split a stream into lines; `file` is where it comes from, by whose position the progress is told."""
    reported = count = 0
    while line := lines.readline(MAX_LINE_BYTES + 1):
        rest = line
        while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = lines.readline(MAX_LINE_BYTES + 1)
        yield line.rstrip(b"\r\n")
        count += 1
        if count % _LINES_PER_REPORT == 0:
            advance(file.tell() - reported)
            reported = file.tell()
    advance(file.tell() - reported)
