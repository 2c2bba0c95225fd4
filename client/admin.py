"""A conversation with a service's admin listener."""

import os
from types import TracebackType
from typing import ClassVar, Self

import httpx

from client.errors import ClientError
from client.http import JSON, send

TOKEN_VARIABLE = "HLM_ADMIN_TOKEN"  # noqa: S105 - its name, not its value
CONNECT_TIMEOUT_S = 5.0
DOUBT = (
    "is that the service's admin listener (--admin-url or HLM_ADMIN_URL), and was the service started with"
    f" {TOKEN_VARIABLE}?"
)


class AdminConnection:
    """Sends requests with the token.

    Args:
        url: where the listener is, for example `http://127.0.0.1:8081`.

    Raises:
        ClientError: HLM_ADMIN_TOKEN is not set, or cannot be a token.
    """

    read_timeout_s: ClassVar[float]
    """How long the service may take to answer."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {_token()}"},
            timeout=httpx.Timeout(self.read_timeout_s, connect=CONNECT_TIMEOUT_S),
            trust_env=False,  # the token is for the service, and for no proxy that the environment happens to name
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._http.close()

    def send(self, method: str, path: str, body: bytes | None = None, media_type: str = JSON) -> httpx.Response:
        """As `client.http.send`."""
        return send(self._http, method, self._url, path, body, media_type, doubt=DOUBT)


def _token() -> str:
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if not token:
        raise ClientError(f"{TOKEN_VARIABLE} is not set; expected the token that the service was started with")
    if not all("!" <= character <= "~" for character in token):
        raise ClientError(f"{TOKEN_VARIABLE}: a token has visible ASCII characters only, without a space in between")
    return token
