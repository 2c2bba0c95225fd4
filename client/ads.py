"""Changing the ads of a running service, through its admin listener.

A change that is sent again does no harm, so what may not have arrived is sent again.
"""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from urllib.parse import quote, urlencode

import httpx
from pydantic import BaseModel

from client.admin import AdminConnection
from client.errors import AnswerError, ClientError, UnreachableError
from client.feed import Piece
from client.http import JSON, read_answer

ANSWER_TIMEOUT_S = 600.0
"""Ads without an embedding are embedded before the answer comes, at idle priority."""
PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Before each repetition; together longer than a service takes to start with a small index."""
NDJSON = "application/x-ndjson"
WAIT_MS = 20_000
"""For how long a follower has the service wait for a change."""
UNKNOWN_AD = "404 unknown_ad"
"""Reason of an answer that knows no such ad."""
NAMED_FAILURES = 1_000
"""Failed lines that a report names; it counts the others."""

Change = dict[str, Any]
"""What `GET /changes` says of one ad or campaign."""


class Failure(BaseModel):
    """A line that was not applied, or an ad that was not changed."""

    line: int | None = None
    ad_id: str | None = None
    reason: str


class Report(BaseModel):
    """What became of one change, or of many."""

    applied: int = 0
    failed: list[Failure] = []
    failed_count: int = 0
    sequence: int = 0

    def add(self, other: "Report", lines_before: int = 0) -> None:
        """Take over what became of another change; of lines, before which there were some."""
        named = [Failure(line=(one.line or 0) + lines_before, reason=one.reason) for one in other.failed]
        self.failed += named[: NAMED_FAILURES - len(self.failed)]
        self.applied += other.applied
        self.failed_count += other.failed_count
        self.sequence = other.sequence


class Changes(BaseModel):
    """Some of what has changed since a sequence number, in order."""

    changes: list[Change]
    sequence: int
    """To go on from."""
    last: int
    """Of the last change there is."""
    complete: bool = True
    """False where deletions may be missing, or the record was restored and has other changes under these numbers."""


class AdsClient(AdminConnection):
    """What one service's admin listener does about ads.

    A request that found no answer, or 503, is sent again after a while; not so where nothing was ever answered.
    """

    read_timeout_s = ANSWER_TIMEOUT_S

    def __init__(self, url: str, *, pause: Callable[[float], None] = time.sleep) -> None:
        """Take where the listener is; `pause` waits for some seconds."""
        super().__init__(url)
        self._pause = pause
        self._was_answered = False

    def put(self, pieces: Iterable[Piece], on_piece: Callable[[Piece], None]) -> Report:
        """Write ads anew, one a line; `on_piece` is called with each piece that is written.

        Raises:
            ClientError: a piece of the feed could not be written; says what was before.
        """
        report = Report()
        for piece in pieces:
            try:
                answer = read_answer(Report, self._ask("PUT", "/ads", piece.body, NDJSON))
            except ClientError as error:
                if not report.sequence:
                    raise
                raise ClientError(f"{error}; the lines before {piece.first_line:,} are done") from error
            report.add(answer, piece.first_line - 1)
            on_piece(piece)
        return report

    def delete(self, ad_id: str) -> Report:
        """Remove an ad; of one that there is not, nothing is applied."""
        return read_answer(Report, self._ask("DELETE", _path("ads", ad_id)))

    def patch_ad(self, ad_id: str, patch: dict[str, object]) -> Report:
        """Change status or bid of an ad."""
        return read_answer(Report, self._ask("PATCH", _path("ads", ad_id), json.dumps(patch).encode()))

    def patch_campaign(self, campaign_id: str, patch: dict[str, object]) -> Report:
        """Change what holds for all ads of a campaign."""
        return read_answer(Report, self._ask("PATCH", _path("campaigns", campaign_id), json.dumps(patch).encode()))

    def show(self, ad_id: str) -> bytes:
        """What the record says of an ad, as JSON."""
        return self._ask("GET", _path("ads", ad_id)).content

    def changes(self, since: int, *, wait_ms: int = 0) -> Changes:
        """What has changed since a sequence number; waits for the first change where there is none."""
        return read_answer(Changes, self._ask("GET", f"/changes?{urlencode({'since': since, 'wait_ms': wait_ms})}"))

    def _ask(self, method: str, path: str, body: bytes | None = None, media_type: str = JSON) -> httpx.Response:
        for pause_s in (*PAUSES_S, None):
            try:
                response = self.send(method, path, body, media_type)
            except (UnreachableError, AnswerError) as error:
                if pause_s is None or not self._may_help_to_repeat(error):
                    raise
                self._pause(pause_s)
            else:
                self._was_answered = True
                return response
        raise AssertionError("unreachable")

    def _may_help_to_repeat(self, error: ClientError) -> bool:
        if isinstance(error, AnswerError):
            return error.reason.startswith("503 ")
        return self._was_answered


def change_each(ad_ids: Sequence[str], change: Callable[[str], Report]) -> Report:
    """Change ads one after another, as of one; those that there are not have failed, and the others are changed.

    Raises:
        ClientError: a change was not taken; says up to where they were.
    """
    report = Report()
    for position, ad_id in enumerate(ad_ids):
        try:
            report.add(change(ad_id))
        except ClientError as error:
            if isinstance(error, AnswerError) and error.reason == UNKNOWN_AD:
                report.failed.append(Failure(ad_id=ad_id, reason="there is no such ad"))
                report.failed_count += 1
            elif position:
                done = f"{position - report.failed_count:,} of the {position:,} ads before {ad_id!r} are done"
                raise ClientError(f"{error}; {done}, those after it are not") from error
            else:
                raise
    return report


def _path(kind: str, own_id: str) -> str:
    return f"/{kind}/{quote(own_id, safe='')}"
