"""Ads and campaigns over the admin listener: written, patched, deleted, shown, followed.

    PUT /ads   DELETE /ads/{ad_id}   PATCH /ads/{ad_id}   PATCH /campaigns/{campaign_id}
    GET /ads/{ad_id}   GET /changes?since=

Each answer to a change says how many were applied, which lines failed and why, and the sequence number by which the
change is recorded. A change that is sent again does no harm.
"""

import asyncio
import codecs
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from time import monotonic
from typing import Annotated, cast

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from index.ad_document import write_ad, write_campaign
from index.changes import AdPatch, AdState, CampaignPatch, Change, Delete, PatchAd, PatchCampaign, State
from index.lines import MAX_LINE_BYTES
from index.writer import Outcome
from service.ad_changes import AdChanges, Failure, Line
from service.errors import AdNotFoundError, FaultError, InvalidRequestError, RequestError
from service.ndjson import read_lines
from service.origin import OnDone
from service.problems import error_response
from service.routes import JSON, check_announced_length, read_body
from service.validation import Body, parse_body, refusal_of

MAX_ADS_BYTES = 256 * 1024 * 1024
MAX_PATCH_BYTES = 16 * 1024 * 1024
"""Room for the 20,000 negative keywords that a campaign may have, of 512 characters each."""
LINES_A_STEP = 200
"""Recorded together, after which others have their turn."""
BYTES_A_STEP = 4 * 1024 * 1024
MOST_FAILURES = 1_000
"""Failed lines that an answer names; it counts the others."""
POLL_S = 0.05
"""How often a caller who waits for changes is looked after."""


class Progress:
    """What has become of a body so far: the answer, also that to a request that broke off."""

    def __init__(self, sequence: int) -> None:
        """Begin after the change of some sequence number."""
        self.applied = 0
        self.failed: list[Failure] = []
        self.failed_count = 0
        self.sequence = sequence

    def add(self, applied: int, failed: Sequence[Failure], sequence: int) -> None:
        """More lines were taken."""
        self.applied += applied
        self.failed += failed[: MOST_FAILURES - len(self.failed)]
        self.failed_count += len(failed)
        self.sequence = sequence

    def describe(self) -> dict[str, object]:
        """As the answer has it."""
        return {
            "applied": self.applied,
            "failed": [{"line": line, "reason": reason} for line, reason in self.failed],
            "failed_count": self.failed_count,
            "sequence": self.sequence,
        }


class ChangesQuery(BaseModel):
    """What `GET /changes` is asked."""

    model_config = ConfigDict(extra="forbid")

    since: Annotated[int, Field(ge=0, le=2**62)] = 0
    limit: Annotated[int, Field(ge=1, le=1_000)] = 100
    wait_ms: Annotated[int, Field(ge=0, le=30_000)] = 0


async def put_ads(request: Request) -> Response:
    """Write ads anew, one a line; those before a failure of the whole request are written."""
    check_announced_length(request.scope, MAX_ADS_BYTES)
    changes = _changes_of(request)
    progress = Progress(changes.sequence)
    try:
        async for lines in _steps(request):
            progress.add(*await changes.put(lines))
    except RequestError as error:
        return error_response(error, progress.describe())
    return _answer(progress.describe())


async def delete_ad(request: Request) -> Response:
    """Remove an ad; of one that there is not, nothing is applied."""
    return await _make(request, Delete(request.path_params["ad_id"]))


async def patch_ad(request: Request) -> Response:
    """Change status or bid of an ad."""
    patch = await _body(request, AdPatch, "ad_patch")
    return await _make(request, PatchAd(request.path_params["ad_id"], patch))


async def show_ad(request: Request) -> Response:
    """What the record says of an ad, less its embedding."""
    ad_id = request.path_params["ad_id"]
    state = await _changes_of(request).find(ad_id)
    if state is None:
        raise AdNotFoundError(f"there is no ad {ad_id!r}")
    return _answer(_describe(state))


async def patch_campaign(request: Request) -> Response:
    """Change a campaign; one that was never described begins with everything allowed."""
    campaign_id = request.path_params["campaign_id"]
    patch = await _body(request, CampaignPatch, "campaign_patch")
    if not 1 <= len(campaign_id) <= 256:
        message = "expected 1 to 256 characters"
        raise InvalidRequestError(f"campaign_id: {message}", [{"field": "campaign_id", "message": message}])
    return await _make(request, PatchCampaign(campaign_id, patch))


async def changes_since(request: Request) -> Response:
    """What has changed since a sequence number, in order; waits for the first change where there is none yet."""
    try:
        query = ChangesQuery.model_validate(dict(request.query_params))
    except ValidationError as error:
        raise refusal_of(error) from error
    changes, ends = _changes_of(request), monotonic() + query.wait_ms / 1e3
    while changes.sequence <= query.since and monotonic() < ends:  # noqa: ASYNC110 - they come from another thread
        await asyncio.sleep(POLL_S)
    states, complete = await changes.changes(query.since, query.limit)
    found = states[-1].sequence if states else 0
    described = await asyncio.to_thread(lambda: list(map(_describe, states)))  # 7 ms for a thousand
    last = max(changes.sequence, found)
    sequence = found or min(query.since, last)
    return _answer({"changes": described, "sequence": sequence, "last": last, "complete": complete})


ROUTES = (
    Route("/ads", put_ads, methods=["PUT"]),
    Route("/ads/{ad_id:path}", delete_ad, methods=["DELETE"]),
    Route("/ads/{ad_id:path}", patch_ad, methods=["PATCH"]),
    Route("/ads/{ad_id:path}", show_ad, methods=["GET"]),
    Route("/campaigns/{campaign_id:path}", patch_campaign, methods=["PATCH"]),
    Route("/changes", changes_since, methods=["GET"]),
)


def patch_directly(changes: AdChanges, ad_id: str, body: bytes, on_done: OnDone) -> None:
    """As `patch_ad`, without the framework: of a body that is short and in.

    Args:
        changes: makes the change.
        ad_id: what to change.
        body: no longer than `service.ad_changes.SHORT_BODY_BYTES`.
        on_done: gets the answer, now or later.
    """
    try:
        with _counting_invalid(changes, "ad_patch"):
            change = PatchAd(ad_id, parse_body(AdPatch, body))
        changes.submit(change, lambda outcome: on_done(_answer_or_refusal(change, outcome)))
    except RequestError as error:
        on_done(error.alone())


async def _make(request: Request, change: Change) -> Response:
    outcome = await _changes_of(request).make(change)
    return Response(_describe_outcome(change, outcome), media_type=JSON)


def _describe_outcome(change: Change, outcome: Outcome) -> bytes:
    """The answer to one change.

    Raises:
        AdNotFoundError: there is no ad to patch.
    """
    if outcome.unknown and isinstance(change, PatchAd):
        raise AdNotFoundError(f"there is no ad {change.ad_id!r}")
    progress = Progress(outcome.sequence)
    progress.add(outcome.applied, (), outcome.sequence)
    return orjson.dumps(progress.describe())


def _answer_or_refusal(change: Change, outcome: Outcome | Exception) -> bytes | RequestError:
    if isinstance(outcome, RequestError):
        return outcome
    if isinstance(outcome, Exception):  # as `service.problems` answers it; the writer has logged it
        return FaultError(type(outcome).__name__)
    try:
        return _describe_outcome(change, outcome)
    except RequestError as error:
        return error.alone()


async def _body(request: Request, model: type[Body], kind: str) -> Body:
    changes = _changes_of(request)
    body = await read_body(request.scope, request.receive, MAX_PATCH_BYTES)
    with _counting_invalid(changes, kind):
        return await changes.parse(model, body)


@contextlib.contextmanager
def _counting_invalid(changes: AdChanges, kind: str) -> Iterator[None]:
    try:
        yield
    except RequestError:
        changes.metrics.invalid(kind)
        raise


async def _steps(request: Request) -> AsyncIterator[list[Line]]:
    """The lines of a body, with their numbers, as many at a time as are recorded together."""
    held: list[Line] = []
    size = number = 0
    async for lines in read_lines(request.receive, max_bytes=MAX_ADS_BYTES, max_line_bytes=MAX_LINE_BYTES):
        for line in lines:
            number += 1
            held.append((number, line.removeprefix(codecs.BOM_UTF8) if number == 1 else line))
            size += len(line)
            if len(held) == LINES_A_STEP or size >= BYTES_A_STEP:
                yield held
                held, size = [], 0
    if held:
        yield held


def _describe(state: State) -> dict[str, object]:
    if isinstance(state, AdState):
        ad = None if state.ad is None else orjson.Fragment(write_ad(state.ad))
        return {"sequence": state.sequence, "ad_id": state.ad_id, "ad": ad}
    campaign = state.campaign
    document = orjson.Fragment(write_campaign(campaign))
    return {"sequence": state.sequence, "campaign_id": campaign.campaign_id, "campaign": document}


def _changes_of(request: Request) -> AdChanges:
    return cast("AdChanges", request.app.state.changes)


def _answer(document: dict[str, object]) -> Response:
    return Response(orjson.dumps(document), media_type=JSON)
