"""Logging: the form of a line, what is kept out of it, and how often one may come."""

import asyncio
import io
import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator

import orjson
import pytest
from pydantic import BaseModel

from artifacts.store import ArtifactError
from service.errors import InvalidRequestError
from service.logs import REPEATS, JsonFormatter, RepeatLimit, TextFormatter, configure_logging, log_loop_exception
from service.settings import ServerSettings

SECRET = "zqxj-marker"


@pytest.fixture
def log() -> Iterator[tuple[logging.Logger, Callable[[], list[dict[str, object]]]]]:
    """A logger with JSON lines, and what it has written."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("tests.logs")
    logger.propagate = False
    logger.addHandler(handler)
    yield logger, lambda: [orjson.loads(line) for line in stream.getvalue().splitlines()]
    logger.removeHandler(handler)


def record(created: float, line: int = 1, **fields: object) -> logging.LogRecord:
    return logging.makeLogRecord(
        {"created": created, "pathname": "a.py", "lineno": line, "name": "a", "levelname": "INFO", "msg": "m", **fields}
    )


def test_a_line_is_one_object_with_time_level_logger_message_and_fields():
    line = JsonFormatter().format(record(1_700_000_000.1234, msg="took %d", args=(3,), request_id="r-1", release="a"))
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.123Z",
        "level": "info",
        "logger": "a",
        "message": "took 3",
        "request_id": "r-1",
        "release": "a",
    }


def test_a_field_cannot_take_the_place_of_what_every_line_has():
    line = json.loads(JsonFormatter().format(record(0.0, level="none", time="never")))
    assert (line["level"], line["time"]) == ("info", "1970-01-01T00:00:00.000Z")


def test_line_breaks_and_broken_characters_stay_within_their_line():
    line = JsonFormatter().format(record(0.0, msg="two\nlines \ud800"))
    assert "\n" not in line
    assert json.loads(line)["message"] == "two\nlines \ud800"


def test_text_is_for_a_person():
    assert TextFormatter().format(record(0.0, request_id="r-1")) == "1970-01-01T00:00:00.000Z INFO a: m request_id=r-1"


class Wanted(BaseModel):
    top_k: int


def quote_in_key() -> None:
    raise KeyError(SECRET)


def quote_in_pydantic() -> None:
    Wanted.model_validate({"top_k": SECRET})


def quote_in_a_chain() -> None:
    try:
        quote_in_key()
    except KeyError as error:
        raise RuntimeError(SECRET) from error


def quote_in_context() -> None:
    try:
        raise ValueError(SECRET)
    finally:
        raise TypeError(SECRET)


def quote_in_group() -> None:
    raise ExceptionGroup(SECRET, [ValueError(SECRET), KeyError(SECRET)])


def quote_in_request_error() -> None:
    raise InvalidRequestError(f"{SECRET}: Extra inputs are not permitted", [])


@pytest.mark.parametrize(
    ("fault", "kinds"),
    [
        (quote_in_key, ["KeyError"]),
        (quote_in_pydantic, ["ValidationError"]),
        (quote_in_a_chain, ["KeyError", "RuntimeError"]),
        (quote_in_context, ["ValueError", "TypeError"]),
        (quote_in_group, ["ExceptionGroup", "ValueError", "KeyError"]),
        (quote_in_request_error, ["InvalidRequestError"]),
    ],
    ids=["key", "pydantic", "chain", "context", "group", "our own refusal"],
)
def test_an_exception_tells_kind_and_place_but_not_what_it_was_given(
    log: tuple[logging.Logger, Callable[[], list[dict[str, object]]]], fault: Callable[[], None], kinds: list[str]
):
    logger, lines = log
    try:
        fault()
    except Exception:
        logger.exception("failed")
    (line,) = lines()
    described = str(line["exception"])
    assert SECRET not in json.dumps(line)
    assert fault.__name__ in described
    assert all(kind in described for kind in kinds)


@pytest.mark.parametrize(
    "error", [ArtifactError("model.onnx: missing"), FileNotFoundError(2, "No such file", "model.onnx")], ids=type
)
def test_a_message_about_a_file_is_kept(error: Exception):
    line = JsonFormatter().format(record(0.0, exc_info=(type(error), error, None)))
    assert "model.onnx" in json.loads(line)["exception"]


def test_a_line_of_code_that_repeats_itself_is_cut_short_and_the_next_record_says_by_how_many():
    limit = RepeatLimit()
    assert [limit.filter(record(0.001 * n)) for n in range(REPEATS + 5)] == [True] * REPEATS + [False] * 5
    assert limit.filter(record(0.02, line=2))  # another line is not affected
    late = record(11.0)
    assert limit.filter(late)
    assert late.suppressed == 5  # type: ignore[attr-defined]
    calm = record(12.0)
    assert limit.filter(calm)
    assert not hasattr(calm, "suppressed")


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """What was written to standard error; the process's logging is put back afterwards."""
    root = logging.getLogger()
    handlers, level, hooks = root.handlers[:], root.level, (threading.excepthook, sys.unraisablehook)
    monkeypatch.setattr("faulthandler.enable", lambda: None)  # it needs a real file
    yield lambda: capsys.readouterr().err
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)
    threading.excepthook, sys.unraisablehook = hooks


def test_what_ends_a_thread_or_breaks_in_the_loop_is_a_line_too(stderr: Callable[[], str]):
    configure_logging(ServerSettings(log_format="auto"))

    def die() -> None:
        raise ValueError(SECRET)

    thread = threading.Thread(target=die, name="doomed")
    thread.start()
    thread.join()

    async def lose_an_exception() -> None:
        asyncio.get_running_loop().set_exception_handler(log_loop_exception)
        asyncio.get_running_loop().call_soon(die)
        await asyncio.sleep(0)

    asyncio.run(lose_an_exception())
    written = stderr()
    lines = [json.loads(line) for line in written.splitlines()]
    assert [line["message"].split(" ")[0:2] for line in lines] == [["thread", "doomed"], ["event", "loop:"]]
    assert all("die" in line["exception"] for line in lines)
    assert SECRET not in written


def test_auto_is_text_on_a_terminal(stderr: Callable[[], str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    configure_logging(ServerSettings(log_format="auto"))
    logging.getLogger("a").info("hello")
    assert stderr().endswith("Z INFO a: hello\n")


def test_uvicorn_speaks_from_warnings_on_and_in_the_same_form(stderr: Callable[[], str]):
    configure_logging(ServerSettings(log_format="json"))
    logging.getLogger("uvicorn.error").info("Started server process")
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    assert [json.loads(line)["logger"] for line in stderr().splitlines()] == ["uvicorn.error"]
