"""`POST /retrieve/batch`: many queries of a caller who can wait, a line of the answer for each."""

from collections.abc import AsyncIterator, Callable
from time import perf_counter
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from service.errors import NotReadyError, RequestError
from service.offline_retriever import Place
from service.release import Release
from service.routes import JSON, read_body, service_of
from service.schemas import OfflineRequest, Problem, RetrieveResponse, inline_schema
from service.service import Service

NDJSON = "application/x-ndjson"

router = APIRouter()

_PROBLEM = {"model": Problem, "content": {"application/problem+json": {}}}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A line for each query, in their order: an answer or a problem, with its `position`.",
        "content": {NDJSON: {"schema": inline_schema(RetrieveResponse)}},
    },
    **dict.fromkeys((400, 408, 413, 422, 503), _PROBLEM),
}
_REQUEST_BODY = {"required": True, "content": {JSON: {"schema": inline_schema(OfflineRequest)}}}


class Lines(StreamingResponse):
    """A streamed answer that says when it has ended, also when its client has gone."""

    def __init__(self, lines: AsyncIterator[bytes], ended: Callable[[], None]) -> None:
        super().__init__(lines, media_type=NDJSON, headers={"X-Accel-Buffering": "no"})  # nginx would hold lines back
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all lines, or as many as there is a client for."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._ended()


@router.post(
    "/retrieve/batch",
    summary="Ads for many queries, at low priority",
    responses=_RESPONSES,
    openapi_extra={"requestBody": _REQUEST_BODY},
)
async def retrieve_batch(request: Request) -> Response:
    """Answer up to 1,000 queries line by line, each as soon as it and those before it are done."""
    service, arrived = service_of(request), perf_counter()
    try:
        release = service.release  # all lines come from this one, whatever is served by the time of the last
        if release is None:
            raise NotReadyError("the release is still being loaded")
        service.offline.require_place()
        body = await read_body(request.scope, request.receive, service.settings.limits.max_batch_body_bytes)
        place = service.offline.take_place()  # not before, or who sends slowly would keep others out
        try:
            return await _answer(service, release, body, place, arrived)
        except BaseException:
            service.offline.give_back(place)
            raise
    except RequestError as error:
        service.metrics.lane.offline_request(error.problem)
        raise


async def _answer(service: Service, release: Release, body: bytes, place: Place, arrived: float) -> Response:
    wanted = await service.offline.parse(body)

    def ended() -> None:
        service.metrics.lane.offline_request("cancelled" if place.remaining else "ok")
        service.offline.give_back(place)

    return Lines(service.offline.lines(release, wanted, place, arrived), ended)
