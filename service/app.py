"""Puts the public listener's app together; no logic of its own."""

import logging

import orjson
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from service import offline, routes
from service.errors import PipelineError, RequestError
from service.service import Service

logger = logging.getLogger(__name__)


def create_app(service: Service) -> ASGIApp:
    """The public listener's app; the caller starts and stops `service`."""
    app = FastAPI(
        title="hlm-retrieval",
        summary="Sponsored-search retrieval: query text in, ads out.",
        version="1",
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # ours is metrics.py; theirs costs every request
    )
    app.state.service = service
    app.include_router(routes.router)
    app.include_router(offline.router)
    app.add_exception_handler(RequestError, _answer_request_error)
    app.add_exception_handler(HTTPException, _answer_http_exception)
    return ShortCut(service, app)


class ShortCut:
    """Answers `POST /retrieve` itself and leaves everything else to FastAPI.

    Middleware, routing and dependencies cost a request more than its search; docs/experiments.md, "one request". The
    route stands in FastAPI as well, for its documentation.
    """

    def __init__(self, service: Service, app: FastAPI) -> None:
        self._service = service
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http" or scope["path"] != "/retrieve" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        try:
            body = await routes.answer_retrieve(self._service, scope, receive)
        except RequestError as error:
            await _refuse(error)(scope, receive, send)
            return
        except Exception as error:  # a fault of ours: the client learns no internals, the log gets all
            logger.exception("a request failed")
            self._service.metrics.refused(PipelineError.problem)
            await _refuse(PipelineError(type(error).__name__))(scope, receive, send)
            return
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def _answer_request_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return _refuse(error)


def _refuse(error: RequestError) -> Response:
    headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    if error.closes_connection:
        headers["Connection"] = "close"
    return _problem(error.status, error.problem, error.title, str(error), error.details(), headers)


async def _answer_http_exception(_: Request, error: Exception) -> Response:
    """No such path, or not by this method."""
    assert isinstance(error, HTTPException)
    name = error.detail.lower().replace(" ", "_")
    return _problem(error.status_code, name, error.detail, error.detail, {}, dict(error.headers or {}))


def _problem(
    status: int, problem: str, title: str, detail: str, details: dict[str, object], headers: dict[str, str]
) -> Response:
    document = {"type": problem, "title": title, "status": status, "detail": detail, **details}
    return Response(orjson.dumps(document), status, headers, media_type="application/problem+json")
