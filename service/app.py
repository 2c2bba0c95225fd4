"""Puts the FastAPI app together; no routes and no logic of its own."""

import orjson
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from service import routes
from service.errors import RequestError
from service.service import Service


def create_app(service: Service) -> FastAPI:
    """The public listener's app; the caller starts and stops `service`."""
    app = FastAPI(
        title="hlm-retrieval",
        summary="Sponsored-search retrieval: query text in, ads out.",
        version="1",
        telemetry={"tracing": False, "metrics": False, "logs": False},  # ours is metrics.py; theirs costs every request
    )
    app.state.service = service
    app.include_router(routes.router)
    app.add_exception_handler(RequestError, _answer_request_error)
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_exception_handler(Exception, _answer_unexpected)
    return app


async def _answer_request_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    return _problem(error.status, error.problem, error.title, str(error), error.details(), headers)


async def _answer_http_exception(_: Request, error: Exception) -> Response:
    """No such path, or not by this method."""
    assert isinstance(error, HTTPException)
    name = error.detail.lower().replace(" ", "_")
    return _problem(error.status_code, name, error.detail, error.detail, {}, dict(error.headers or {}))


async def _answer_unexpected(_: Request, error: Exception) -> Response:
    """A fault of ours: uvicorn logs the traceback, the client learns no internals."""
    return _problem(500, "internal_error", "The request could not be answered", type(error).__name__, {}, {})


def _problem(
    status: int, problem: str, title: str, detail: str, details: dict[str, object], headers: dict[str, str]
) -> Response:
    document = {"type": problem, "title": title, "status": status, "detail": detail, **details}
    return Response(orjson.dumps(document), status, headers, media_type="application/problem+json")
