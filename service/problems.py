"""Refusals as RFC 9457 problem documents, for every listener and every path that a request may take."""

import orjson

from service.errors import RequestError

MEDIA_TYPE = "application/problem+json"


def problem_body(problem: str, title: str, status: int, detail: str, details: dict[str, object]) -> bytes:
    """The document."""
    return orjson.dumps({"type": problem, "title": title, "status": status, "detail": detail, **details})


def error_body(error: RequestError) -> bytes:
    """The document of a refused request."""
    return problem_body(error.problem, error.title, error.status, str(error), error.details())
