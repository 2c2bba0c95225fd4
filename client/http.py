"""The conversation with a running service: a request out, and an answer or one clear sentence back."""

import json
from collections.abc import Sequence
from types import TracebackType
from typing import Self, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from client.errors import AnswerError, ClientError, UnreachableError

ModelT = TypeVar("ModelT", bound=BaseModel)
JSON = "application/json"

CLIENT_TIMEOUT_S = 15.0
"""Longer than the longest `timeout_ms` a service accepts (10,000), so that its own answer comes first."""


class AnsweredAd(BaseModel):
    """One ad of an answer; fields that were not asked for, or that the feed left out, are None."""

    ad_id: str
    score: float
    title: str | None = None
    advertiser_id: str | None = None


class Coverage(BaseModel):
    """Whether the answer is all that was asked for."""

    complete: bool
    reason: str | None


class Answer(BaseModel):
    """What this room reads of an answer to `POST /retrieve`; the service may say more."""

    release: str
    model_version: str
    index_version: str
    ads: list[AnsweredAd]
    coverage: Coverage
    timings_ms: dict[str, float]


class RetrieveClient:
    """Connections to one service, which any number of threads may share.

    Args:
        url: where the service listens, for example `http://127.0.0.1:8080`; a path before `/retrieve` is kept.
        connections: most requests under way at a time.
    """

    def __init__(self, url: str, *, connections: int = 1) -> None:
        self.url = url.rstrip("/")
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._http = httpx.Client(timeout=CLIENT_TIMEOUT_S, limits=limits)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._http.close()

    def retrieve(
        self, query: str, *, top_k: int, timeout_ms: int | None = None, fields: Sequence[str] = ()
    ) -> tuple[Answer, bytes]:
        """Ask for ads; gives the answer, and its body as it came.

        Args:
            query: what the user typed.
            top_k: most ads wanted.
            timeout_ms: the service's time budget; by default its own.
            fields: ad fields wanted beside id and score.

        Raises:
            AnswerError: the status was not 200.
            ClientError: there was no answer, or not one of this service.
        """
        request: dict[str, object] = {"query": query, "top_k": top_k, "fields": list(fields)}
        if timeout_ms is not None:
            request["timeout_ms"] = timeout_ms
        response = send(self._http, "POST", self.url, "/retrieve", _encode(request))
        return read_answer(Answer, response), response.content


def send(
    http: httpx.Client,
    method: str,
    url: str,
    path: str,
    body: bytes | None = None,
    media_type: str = JSON,
    *,
    doubt: str = "is the service running there?",
) -> httpx.Response:
    """Send a request with a body or none, and take the answer with status 200; `doubt` is asked where nobody listens.

    Raises:
        AnswerError: the status was another.
        UnreachableError: there was no answer.
        ClientError: the address is none.
    """
    headers = {} if body is None else {"Content-Type": media_type}
    try:
        response = http.request(method, f"{url}{path}", content=body, headers=headers)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise ClientError(
            f"{url}: not an address to ask; expected one such as http://127.0.0.1:8080 ({error})"
        ) from error
    except httpx.ConnectError as error:
        raise UnreachableError(f"{url}: cannot connect ({error}); {doubt}") from error
    except httpx.TimeoutException as error:
        raise UnreachableError(f"{url}{path}: no answer within {http.timeout.read:g} s") from error
    except httpx.HTTPError as error:
        raise UnreachableError(f"{url}{path}: the conversation broke off ({error})") from error
    if response.status_code != 200:
        raise _answer_error(f"{url}{path}", response)
    return response


def read_answer(model: type[ModelT], response: httpx.Response) -> ModelT:
    """Take from an answer with status 200 what it says.

    Raises:
        ClientError: it is not one of this service.
    """
    try:
        return model.model_validate_json(response.content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "body"
        raise ClientError(
            f"{response.url}: answered 200, but not as this service does: {where}: {first['msg']}"
        ) from error


def _encode(request: dict[str, object]) -> bytes:
    try:
        return json.dumps(request, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ClientError(f"The query is not valid Unicode: {error.reason} at character {error.start}") from error


def _answer_error(where: str, response: httpx.Response) -> AnswerError:
    """Put a problem document (RFC 9457), or whatever else came, into one sentence."""
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        problem = {}
    name = str(problem.get("type") or "").removeprefix("about:blank") or response.reason_phrase
    reason = f"{response.status_code} {name}".strip()
    detail = problem.get("detail") or problem.get("title") or "no problem document came with it"
    return AnswerError(f"{where}: answered {reason}: {detail}", reason)
