"""Everything that can go wrong with a request, and the one table of how it is answered.

HlmError
└─ ServiceError
├─ StartupError          refuses to start
├─ ReleaseError          a release cannot be served, or not as it was asked for
├─ MergeError            the graphs of a live index could not be built anew, or not swapped
└─ RequestError          answered with an RFC 9457 problem document
├─ InvalidJsonError      400 invalid_json
├─ SlowBodyError         408 slow_body
├─ BodyTooLargeError     413 body_too_large
├─ InvalidRequestError   422 invalid_request, each wrong field named
├─ Overloaded            503 overloaded, with Retry-After
├─ NotReadyError         503 not_ready, with Retry-After
├─ DeadlineExceeded      504 deadline_exceeded
├─ ClientGone            499 cancelled; nobody reads it
├─ PipelineError         500 internal_error
├─ FaultError            500 internal_error, what nobody has foreseen
├─ UnauthorizedError     401 unauthorized, on the admin listener
├─ ReleaseRejectedError  409 release_rejected, on the admin listener
├─ AdNotFoundError       404 unknown_ad, on the admin listener
├─ ReadOnlyIndexError    409 read_only_index, on the admin listener
└─ RecordRefusedError    503 record_refused, on the admin listener
   └─ StorageFullError   507 storage_full, on the admin listener
"""

import math
from typing import ClassVar, Self

from artifacts.errors import HlmError

PREDICTED_WAIT_HEADER = "X-HLM-Predicted-Wait-Ms"
"""How long the answer would have taken, in an `overloaded` one."""


class ServiceError(HlmError):
    """Base of the errors of this room."""


class StartupError(ServiceError):
    """The service refuses to start; the message says which setting or file is wrong."""


class ReleaseError(ServiceError):
    """A release cannot be served; the message names it and says which file or figure is wrong."""


class MergeError(ServiceError):
    """The graphs of a live index could not be built anew, or not swapped; what is searched stays as it is."""


class RequestError(ServiceError):
    """A request that gets no ads. `problem` is stable: callers may branch on it."""

    status: ClassVar[int] = 500
    problem: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "The request could not be answered"
    closes_connection: ClassVar[bool] = False
    """Whether the rest of the request is left unread, so that no other can follow it."""
    retry_after_s: int | None = None
    request_id: str | None = None
    """Of the request that it answers, where that is known."""

    def alone(self) -> Self:
        """This, without a way back to the frames that it came through, which hold the request and its release."""
        self.__traceback__ = self.__cause__ = self.__context__ = None
        return self

    def headers(self) -> dict[str, str]:
        """Header fields of the answer beyond those of its body."""
        headers = {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}
        if self.closes_connection:
            headers["Connection"] = "close"
        return headers

    def details(self) -> dict[str, object]:
        """Members of the problem document beyond the standard ones."""
        return {} if self.request_id is None else {"request_id": self.request_id}


class InvalidJsonError(RequestError):
    """The body is not a JSON document."""

    status, problem, title = 400, "invalid_json", "The body is not JSON"


class SlowBodyError(RequestError):
    """The body did not come within the longest time budget there is."""

    status, problem, title = 408, "slow_body", "The body did not come in time"
    closes_connection = True


class BodyTooLargeError(RequestError):
    """The body is over `limits.max_body_bytes`."""

    status, problem, title = 413, "body_too_large", "The body is too large"
    closes_connection = True


class InvalidRequestError(RequestError):
    """The body is JSON, but a field is wrong."""

    status, problem, title = 422, "invalid_request", "A field is wrong"

    def __init__(self, message: str, errors: list[dict[str, str]]) -> None:
        super().__init__(message)
        self.errors = errors

    def details(self) -> dict[str, object]:
        """Each wrong field with what is wrong with it."""
        return super().details() | {"errors": self.errors}


class Overloaded(RequestError):  # noqa: N818 - a state the caller must know, not a fault
    """There is more work than can be done within the time budget, or than may wait."""

    status, problem, title = 503, "overloaded", "The service is overloaded"

    def __init__(self, reason: str, predicted_wait_s: float) -> None:
        super().__init__(f"{reason}: about {predicted_wait_s * 1e3:.0f} ms")
        self._reason = reason
        self.retry_after_s = max(1, math.ceil(predicted_wait_s))
        self.predicted_wait_s = predicted_wait_s

    def headers(self) -> dict[str, str]:
        """When to come back, and how long the answer would have taken."""
        return super().headers() | {PREDICTED_WAIT_HEADER: str(math.ceil(self.predicted_wait_s * 1e3))}

    def for_others(self) -> "Overloaded":
        """The same, of no request in particular."""
        return Overloaded(self._reason, self.predicted_wait_s)


class NotReadyError(RequestError):
    """No release is loaded yet."""

    status, problem, title = 503, "not_ready", "The service is not ready"
    retry_after_s = 1


class DeadlineExceeded(RequestError):  # noqa: N818 - likewise
    """The caller's time budget was spent before there was an answer."""

    status, problem, title = 504, "deadline_exceeded", "The deadline has passed"


class ClientGone(RequestError):  # noqa: N818 - likewise
    """The client closed its connection before there was an answer."""

    status, problem, title = 499, "cancelled", "The client went away"


class PipelineError(RequestError):
    """Encoding or searching this query failed, also when it was tried alone."""

    status, problem, title = 500, "internal_error", "Encoding or searching failed"


class FaultError(RequestError):
    """A fault of ours, named by its type alone: the client learns no internals."""

    closes_connection = True


class UnauthorizedError(RequestError):
    """A request to the admin listener came without its token."""

    status, problem, title = 401, "unauthorized", "The token is missing or wrong"
    closes_connection = True

    def headers(self) -> dict[str, str]:
        """How to do better."""
        return super().headers() | {"WWW-Authenticate": "Bearer"}


class ReleaseRejectedError(RequestError):
    """A release is not served, for the reason given; what was served before still is."""

    status, problem, title = 409, "release_rejected", "The release was rejected"


class AdNotFoundError(RequestError):
    """There is no such ad."""

    status, problem, title = 404, "unknown_ad", "There is no such ad"


class ReadOnlyIndexError(RequestError):
    """The release was loaded without a record, so its ads cannot be changed."""

    status, problem, title = 409, "read_only_index", "The index is read-only"


class RecordRefusedError(RequestError):
    """A change could not be recorded, so it was not made."""

    status, problem, title = 503, "record_refused", "The change could not be recorded"
    retry_after_s = 1


class StorageFullError(RecordRefusedError):
    """There is no room for a change."""

    status, problem, title = 507, "storage_full", "There is no room for the change"
