"""Log records as JSON, one object a line, or as text for a person; never with the text of a query.

A formatter of our own rather than structlog or python-json-logger: either would render a record in the same few lines,
and neither keeps an exception from quoting what a caller sent.
"""

import asyncio
import faulthandler
import json
import logging
import sys
import threading
import traceback
from datetime import UTC, datetime
from typing import Any

from artifacts.errors import HlmError
from service.errors import RequestError
from service.settings import ServerSettings

REPEATS = 10
REPEAT_WINDOW_S = 10.0
"""How often one line of code may log within how long; a fault that every request meets must not become the load."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
"""Attributes that records have anyway; the others are fields of the event, given as `extra=`. The last is uvicorn's."""

logger = logging.getLogger(__name__)


def configure_logging(settings: ServerSettings) -> None:
    """Send all records of the process to standard error, ours and those of libraries, in one form."""
    as_text = settings.log_format == "text" or (settings.log_format == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler()
    handler.setFormatter(TextFormatter() if as_text else JsonFormatter())
    handler.addFilter(RepeatLimit())
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it tells of every file beside the one that is watched
    logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it tells of every file beside the one that counts
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # its start and stop messages; ours say more
    threading.excepthook = _log_thread_exception
    sys.unraisablehook = _log_unraisable
    faulthandler.enable()  # a crash in native code shows where each thread was


def log_loop_exception(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """The event loop's exception handler; asyncio's own prints futures and handles, and with them what they hold."""
    error = context.get("exception")
    logger.error("event loop: %s", context["message"], exc_info=error)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, the event's fields, and the exception if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of one record."""
        line: dict[str, object] = {
            "time": _iso(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in _fields(record).items():
            line.setdefault(name, value)
        if record.exc_info and record.exc_info[1]:
            line["exception"] = describe_exception(record.exc_info[1])
        # The standard library's, not orjson: what is odd in a record, a lone surrogate say, must not lose the record.
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """The same for a person."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of one record, and those of its exception."""
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items())
        line = f"{_iso(record.created)} {record.levelname} {record.name}: {record.getMessage()}{fields}"
        if record.exc_info and record.exc_info[1]:
            return f"{line}\n{describe_exception(record.exc_info[1])}"
        return line


class RepeatLimit(logging.Filter):
    """Lets a line of code log `REPEATS` times in `REPEAT_WINDOW_S`, and its next record say how many were left out."""

    def __init__(self) -> None:
        super().__init__()
        self._windows: dict[tuple[str, int], tuple[float, int]] = {}
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log this one."""
        place = (record.pathname, record.lineno)
        with self._lock:
            began, count = self._windows.get(place, (record.created, 0))
            if record.created - began >= REPEAT_WINDOW_S:
                if count > REPEATS:
                    record.suppressed = count - REPEATS
                began, count = record.created, 0
            self._windows[place] = (began, count + 1)
        return count < REPEATS


def describe_exception(error: BaseException) -> str:
    """Traceback of an exception and of those that led to it.

    A foreign exception's message is left out, because it may quote what it was given: pydantic's and KeyError do.
    """
    return "\n".join(_describe(error, seen=set()))


def _describe(error: BaseException, seen: set[int]) -> list[str]:
    seen.add(id(error))
    lines: list[str] = []
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None and id(before) not in seen:
        lines += [*_describe(before, seen), "which led to:"]
    frames = "".join(traceback.format_tb(error.__traceback__)).rstrip()
    lines += [*([frames] if frames else []), _summary(error)]
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            lines += ["one of the group:", *_describe(one, seen)]
    return lines


def _summary(error: BaseException) -> str:
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    # ONNX Runtime is given token ids and an OSError a file name; a RequestError may repeat a caller's field names.
    ours = isinstance(error, HlmError) and not isinstance(error, RequestError)
    if ours or isinstance(error, OSError) or kind.__module__.startswith("onnxruntime"):
        return f"{name}: {error}"
    return name


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _iso(created: float) -> str:
    return datetime.fromtimestamp(created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _log_thread_exception(ended: threading.ExceptHookArgs) -> None:
    name = ended.thread.name if ended.thread else "unknown"
    value = ended.exc_value or ended.exc_type()
    logger.error("thread %s ended by an exception", name, exc_info=(type(value), value, ended.exc_traceback))


def _log_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    error = unraisable.exc_value
    if error is not None:
        info = (type(error), error, unraisable.exc_traceback)
        logger.error("an exception where none can be raised", exc_info=info)
