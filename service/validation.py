"""Bodies of requests, and what a caller hears of one that is wrong."""

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from service.errors import InvalidJsonError, InvalidRequestError, RequestError

Body = TypeVar("Body", bound=BaseModel)
MOST_ERRORS = 20
MOST_NAME_CHARACTERS = 64


def parse_body(model: type[Body], body: bytes) -> Body:
    """Validate a request's body.

    Raises:
        InvalidJsonError: it is not a JSON document.
        InvalidRequestError: a field is wrong; all wrong fields are named, up to a sensible number.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise refusal_of(error) from error


def refusal_of(error: ValidationError) -> RequestError:
    """The error to answer with: not JSON, or each wrong field by name, up to a sensible number."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    if found[0]["type"] == "json_invalid":
        return InvalidJsonError(found[0]["msg"])
    errors = [{"field": _field(item["loc"]), "message": item["msg"]} for item in found[:MOST_ERRORS]]
    more = f"; and {len(found) - MOST_ERRORS} more" if len(found) > MOST_ERRORS else ""
    return InvalidRequestError("; ".join(f"{item['field']}: {item['message']}" for item in errors) + more, errors)


def _field(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location)[:MOST_NAME_CHARACTERS] or "body"
