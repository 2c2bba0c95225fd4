"""What can go wrong on the caller's side.

HlmError
 └─ ClientError            a service cannot be asked, or what it was given or said makes no sense
     ├─ UnreachableError   it did not answer
     └─ AnswerError        it answered, but not with 200
"""

from artifacts.errors import HlmError


class ClientError(HlmError):
    """Base of the errors of this room."""


class UnreachableError(ClientError):
    """The service did not answer."""


class AnswerError(ClientError):
    """The service answered, but not with 200."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason
        """Status and name of the problem, for example `503 overloaded`: few enough to count by."""
