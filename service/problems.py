"""Refusals as RFC 9457 problem documents, for every listener and every path that a request may take."""

from collections.abc import Mapping
from types import MappingProxyType

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from service.errors import FaultError, RequestError

MEDIA_TYPE = "application/problem+json"


def problem_body(problem: str, title: str, status: int, detail: str, details: dict[str, object]) -> bytes:
    """The document."""
    return orjson.dumps({"type": problem, "title": title, "status": status, "detail": detail, **details})


def error_body(error: RequestError, further: Mapping[str, object] = MappingProxyType({})) -> bytes:
    """The document of a refused request, with further members if any."""
    return problem_body(error.problem, error.title, error.status, str(error), {**error.details(), **further})


def error_response(error: RequestError, further: Mapping[str, object] = MappingProxyType({})) -> Response:
    """The whole answer to a refused request."""
    return Response(error_body(error, further), error.status, error.headers(), media_type=MEDIA_TYPE)


def add_problem_handlers(app: Starlette) -> None:
    """Let an app answer what it refuses, paths that it does not have, and faults of ours with problem documents."""
    app.add_exception_handler(RequestError, _answer_request_error)
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_exception_handler(Exception, _answer_fault)


async def _answer_request_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return error_response(error)


async def _answer_http_exception(_: Request, error: Exception) -> Response:
    """No such path, or not by this method."""
    assert isinstance(error, HTTPException)
    name = error.detail.lower().replace(" ", "_")
    body = problem_body(name, error.detail, error.status_code, error.detail, {})
    return Response(body, error.status_code, dict(error.headers or {}), media_type=MEDIA_TYPE)


async def _answer_fault(_: Request, error: Exception) -> Response:
    """The client learns no internals; uvicorn logs the fault, and closes the connection."""
    return error_response(FaultError(type(error).__name__))
