"""Reads ad feeds: JSON lines, gzip or not, one bad line never in the way of the good ones."""

import codecs
import gzip
import io
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from rich.markup import escape

from artifacts.manifest import FeedReport
from index.errors import FeedError
from terminal import Advance, console, progress

MAX_LINE_BYTES = 1 << 20
"""Room for an embedding of 4,096 numbers and long texts; longer lines are skipped without being held in memory."""

SHOWN_LINES = 20
"""Bad lines printed one by one; the rest are counted by reason."""

NOT_ACTIVE = "not active"
"""The one reason for leaving a line out that is not a fault of the line."""

_GZIP_MAGIC = b"\x1f\x8b"
_LINES_PER_REPORT = 1000


class FeedAd(BaseModel):
    """One line of a feed. Text is taken without surrounding white space, and empty text is no text."""

    model_config = ConfigDict(extra="allow", strict=True, str_strip_whitespace=True, allow_inf_nan=False)

    ad_id: Annotated[str, Field(min_length=1, max_length=256)]
    title: Annotated[str, Field(min_length=1)]
    description: str | None = None
    advertiser_id: str | None = None
    campaign_id: str | None = None
    category: str | None = None
    market: str | None = None
    language: str | None = None
    devices: list[str] | None = None
    bid: Annotated[float, Field(ge=0)] | None = None
    status: str | None = None
    landing_url: str | None = None
    attrs: dict[str, Any] | None = None
    embedding: list[float] | None = None

    @model_validator(mode="before")
    @classmethod
    def _brand_is_advertiser(cls, line: dict[str, Any]) -> dict[str, Any]:
        """Shop data names a brand where an ad feed names its advertiser."""
        if "brand" in line and not line.get("advertiser_id"):
            line["advertiser_id"] = line.pop("brand")
        return line

    @property
    def is_active(self) -> bool:
        """Whether the ad may be shown; an ad without a status may."""
        return self.status is None or self.status.lower() == "active"

    def columns(self) -> dict[str, Any]:
        """What the index keeps beside the id; fields it does not know are kept as attributes."""
        return {**self.__dict__, "attrs": {**(self.__pydantic_extra__ or {}), **(self.attrs or {})}}


class FeedReader:
    """Iterates once over the usable ads of a feed, reporting and counting the lines it leaves out."""

    def __init__(self, path: Path, *, strict: bool = False) -> None:
        """Prepare to read.

        Args:
            path: the feed; gzip is told by its first bytes, not by its name.
            strict: stop at the first bad line instead of skipping it. An ad that is not active is no bad line.
        """
        self._path = path
        self._strict = strict
        self._seen: set[str] = set()
        self._skipped: Counter[str] = Counter()
        self.line_count = 0
        """Lines read so far, good and bad."""

    def __iter__(self) -> Iterator[tuple[int, FeedAd]]:
        """Yield (line number from 1, ad).

        Raises:
            FeedError: the file cannot be read to its end, or a line is bad and `strict` is set.
        """
        for raw in self._raw_lines():
            self.line_count += 1
            if self.line_count == 1:
                raw = raw.removeprefix(codecs.BOM_UTF8)  # noqa: PLW2901 - some editors write one
            try:
                ad = self._parse(raw)
            except ValueError as error:
                self.skip(self.line_count, str(error))
                continue
            self._seen.add(ad.ad_id)
            if not ad.is_active:
                self._skipped[NOT_ACTIVE] += 1
                continue
            yield self.line_count, ad

    def skip(self, line: int, reason: str) -> None:
        """Count a bad line; also for a caller that finds a fault this reader cannot see.

        Raises:
            FeedError: `strict` is set.
        """
        if self._strict:
            raise FeedError(f"{self._path}: line {line}: {reason}")
        self._skipped[reason] += 1
        shown = self.bad_count
        if shown <= SHOWN_LINES:
            console.print(f"[yellow]{escape(self._path.name)} line {line}:[/] {reason}", soft_wrap=True)
        if shown == SHOWN_LINES:
            console.print("[yellow]further bad lines are counted, not shown[/]")

    @property
    def bad_count(self) -> int:
        """Bad lines so far."""
        return self._skipped.total() - self._skipped[NOT_ACTIVE]

    def report(self, *, sha256: str) -> FeedReport:
        """What was read, for the manifest."""
        return FeedReport(
            name=self._path.name,
            sha256=sha256,
            lines=self.line_count,
            ads=self.line_count - self._skipped.total(),
            skipped={reason: count for reason, count in self._skipped.most_common() if count},
        )

    def _parse(self, raw: bytes) -> FeedAd:
        """Turn one line into an ad; the ValueError of a bad line says what is wrong with it, in few distinct words."""
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
            ad = FeedAd.model_validate(line)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise ValueError(f"{first['loc'][0]}: {first['msg'][0].lower()}{first['msg'][1:]}") from None
        if ad.ad_id in self._seen:
            raise ValueError("duplicate ad_id")
        try:
            orjson.dumps(line)
        except TypeError:  # what can be read at 1,024 levels of nesting can be written at 254
            raise ValueError("nested too deeply") from None
        return ad

    def _raw_lines(self) -> Iterator[bytes]:
        """Lines without their ends; an over-long one comes cut, one byte over the limit."""
        try:
            with self._path.open("rb") as file:
                is_gzip = file.read(2) == _GZIP_MAGIC
                file.seek(0)
                with progress("Reading feed", self._path.stat().st_size, "bytes") as advance:
                    yield from _split(gzip.GzipFile(fileobj=file) if is_gzip else file, file, advance)
        except EOFError as error:
            raise FeedError(
                f"{self._path}: the gzip stream ends in the middle, after line {self.line_count}; is the copy complete?"
            ) from error
        except zlib.error as error:
            raise FeedError(f"{self._path}: damaged gzip stream after line {self.line_count}: {error}") from error
        except OSError as error:
            raise FeedError(f"{self._path}: cannot be read after line {self.line_count}: {error}") from error


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
