"""Puts the public listener's app together; no logic of its own."""

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from service import offline, routes
from service.errors import RequestError
from service.problems import MEDIA_TYPE, error_body, problem_body
from service.service import Service


def create_app(service: Service) -> FastAPI:
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
    return app


async def _answer_request_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return Response(error_body(error), error.status, error.headers(), media_type=MEDIA_TYPE)


async def _answer_http_exception(_: Request, error: Exception) -> Response:
    """No such path, or not by this method."""
    assert isinstance(error, HTTPException)
    name = error.detail.lower().replace(" ", "_")
    body = problem_body(name, error.detail, error.status_code, error.detail, {})
    return Response(body, error.status_code, dict(error.headers or {}), media_type=MEDIA_TYPE)
