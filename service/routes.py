"""The public HTTP interface; parsing and answering, no logic."""

import asyncio
from time import perf_counter
from typing import Any, cast

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.types import Receive, Scope

from service.connection import CONNECTION_KEY
from service.errors import BodyTooLargeError, ClientGone, RequestError, SlowBodyError
from service.origin import Origin
from service.problems import error_response
from service.schemas import Problem, RetrieveRequest, RetrieveResponse, inline_schema
from service.service import Service

BODY_TIMEOUT_S = 10.0
"""The longest `timeout_ms` there is; it is in the body, so until that is read nothing else limits the wait."""
MOST_LENGTH_DIGITS = 18
JSON = "application/json"

router = APIRouter()


def service_of(request: Request) -> Service:
    """The service that the app was created with."""
    return cast("Service", request.app.state.service)


_PROBLEM = {"model": Problem, "content": {"application/problem+json": {}}}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"model": RetrieveResponse},
    **dict.fromkeys((400, 413, 422, 500, 503, 504), _PROBLEM),
}
_REQUEST_BODY = {
    "required": True,
    "content": {JSON: {"schema": inline_schema(RetrieveRequest)}},
}


@router.post(
    "/retrieve",
    summary="Ads for a query",
    responses=_RESPONSES,
    openapi_extra={"requestBody": _REQUEST_BODY},
)
async def retrieve(request: Request) -> Response:
    """Answer one query with ads in falling score."""
    # What comes as a plain request is answered by `service.connection.Connection`; this is the general way.
    service, connection = service_of(request), request.scope.get(CONNECTION_KEY)
    arrived = perf_counter()
    try:
        body = await read_body(request.scope, request.receive, service.settings.limits.max_body_bytes)
    except RequestError as error:
        service.metrics.refused(error.problem)
        raise
    headers = request.headers
    origin = Origin(
        caller=headers.get("x-hlm-caller") or (request.client.host if request.client else ""),
        arrived=arrived,
        release=headers.get("x-hlm-release"),
        traceparent=headers.get("traceparent"),
    )
    outcome: asyncio.Future[bytes | RequestError] = asyncio.get_running_loop().create_future()
    work = service.handle(body, origin, lambda answer: None if outcome.done() else outcome.set_result(answer))
    if connection is not None and work is not None:
        connection.on_loss = lambda: work.resolve(ClientGone("the connection was closed"))
    try:
        answer = await outcome
    finally:
        if connection is not None:
            connection.on_loss = None
    if isinstance(answer, RequestError):  # not raised: it may be kept for others, and would keep this request's frames
        return error_response(answer)
    return Response(answer, media_type=JSON)


def check_announced_length(scope: Scope, max_bytes: int) -> None:
    """Refuse a body before it comes.

    Raises:
        BodyTooLargeError: it is to have more than `max_bytes`.
    """
    for name, value in scope["headers"]:
        # The HTTP parser lets digits through only, but any number of them, and Python reads 4,300 at most.
        if name == b"content-length" and (len(value) > MOST_LENGTH_DIGITS or int(value) > max_bytes):
            announced = value[:MOST_LENGTH_DIGITS].decode() + "…" * (len(value) > MOST_LENGTH_DIGITS)
            raise BodyTooLargeError(f"the body has {announced} bytes; at most {max_bytes} are read")


async def read_body(scope: Scope, receive: Receive, max_bytes: int) -> bytes:
    """The request's body.

    Raises:
        BodyTooLargeError: as soon as more than `max_bytes` are announced or have come in.
        SlowBodyError: it did not come in time.
        ClientGone: the connection was closed before all of it was in.
    """
    check_announced_length(scope, max_bytes)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone("the connection was closed")
                body += cast("bytes", message.get("body", b""))
                if len(body) > max_bytes:
                    raise BodyTooLargeError(f"the body has more than the {max_bytes} bytes that are read at most")
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError as error:
        raise SlowBodyError(f"only {len(body)} bytes came within {BODY_TIMEOUT_S:g} s") from error


@router.get("/health/live", summary="Whether the process is alive")
@router.head("/health/live", include_in_schema=False)
@router.api_route("/v2/health/live", methods=["GET", "HEAD"], include_in_schema=False)
async def live(request: Request) -> Response:
    """Answer while the event loop turns; say no where only a new process can help."""
    if service_of(request).live:
        return PlainTextResponse("live\n")
    return PlainTextResponse("stalled for good\n", status_code=503)


@router.get("/health/ready", summary="Whether to send requests here", responses={503: {"description": "Not now"}})
@router.head("/health/ready", include_in_schema=False)
@router.api_route("/v2/health/ready", methods=["GET", "HEAD"], include_in_schema=False)
async def ready(request: Request) -> Response:
    """Say yes once a release is loaded, verified and warm, and no, with the reason, when it should not be used."""
    problems = service_of(request).problems
    if problems:
        return PlainTextResponse("; ".join(problems) + "\n", status_code=503)
    return PlainTextResponse("ready\n")


@router.get("/info", summary="What is served, and how")
async def info(request: Request) -> Response:
    """Versions, embedding space, index figures and settings."""
    service = service_of(request)
    releases = service.releases.status()
    return Response(
        orjson.dumps(
            {
                "ready": service.ready,
                "release": service.release.describe() if service.release else None,
                "releases": releases,
                "last_swap": releases["last_swap"],
                "settings": service.settings.model_dump(mode="json", exclude={"release", "canary", "shadow"}),
            }
        ),
        media_type=JSON,
    )


@router.get("/metrics", summary="Prometheus metrics")
def metrics(request: Request) -> Response:  # a plain function runs in a thread, off the event loop
    """All metrics in the Prometheus text format."""
    return Response(generate_latest(service_of(request).metrics.registry), media_type=CONTENT_TYPE_LATEST)
