"""What is looked at before a load is sent.

A test of half an hour must not end in a sentence that could have been said in its first second.
"""

from pathlib import Path
from urllib.parse import urlsplit

import httpx

from loadtest.answers import judge
from loadtest.errors import LoadTestError
from loadtest.recorder import OK
from loadtest.traffic import Source, Traffic

SLACK_S = 5.0
BUSY = {408, 425, 429}
"""Statuses below 500 that say something of the moment, not of the request."""
BEFORE_ALL = -1
"""The load that asks here; as the first one it would take a query from it that is to be asked only once."""


def check_places(*paths: Path | None) -> None:
    """Make the directories of files that will be written.

    Raises:
        LoadTestError: one cannot be written.
    """
    for path in paths:
        if path is None:
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            is_new = not path.exists()
            path.open("ab").close()
            if is_new:
                path.unlink()
        except OSError as error:
            raise LoadTestError(f"{path}: cannot be written ({error.strerror})") from error


def check_service(url: str, traffic: Traffic) -> None:
    """Ask once; a service that is overloaded or fails is one to be measured.

    Raises:
        LoadTestError: nobody is there, or it is another service, or it takes no such requests.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise LoadTestError(f"{url!r}: expected a URL such as http://127.0.0.1:8080")
    request = next(traffic.requests(Source(load=BEFORE_ALL)))
    place = f"POST {url.rstrip('/')}/retrieve"
    try:
        answer = httpx.post(
            f"{url.rstrip('/')}/retrieve", json=request, timeout=traffic.timeout_ms / 1e3 + SLACK_S, trust_env=False
        )
    except httpx.TimeoutException as error:
        raise LoadTestError(f"{place}: was not answered within {traffic.timeout_ms / 1e3 + SLACK_S:g} s") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise LoadTestError(f"{place}: nobody answers there ({error})") from error
    outcome, _ = judge(answer.status_code, answer.content, request["top_k"])
    if outcome != OK and answer.status_code < 500 and answer.status_code not in BUSY:
        raise LoadTestError(f"{place}: expected ads for {request}, found {outcome}{_detail(answer)}")


def _detail(answer: httpx.Response) -> str:
    try:
        return f" ({answer.json()['detail']})" if answer.status_code != 200 else ""
    except (ValueError, KeyError, TypeError):
        return ""
