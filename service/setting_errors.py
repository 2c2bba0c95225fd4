"""What is wrong with settings, in words of ours: where each comes from, its name, what was expected and found."""

import os
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

ENV_PREFIX = "HLM_"
ENV_DELIMITER = "__"

_NUMBER, _WHOLE, _SECTION = "a number", "a whole number", "settings by name"
_EXPECTED = {
    "float_parsing": _NUMBER,
    "float_type": _NUMBER,
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "int_from_float": _WHOLE,
    "int_parsing": _WHOLE,
    "int_type": _WHOLE,
    "less_than_equal": "at most {le:g}",
    "list_type": "a list",
    "literal_error": "{expected}",
    "model_type": _SECTION,
    "path_type": "a path",
    "string_too_long": "at most {max_length} characters",
    "string_too_short": "at least {min_length} character(s)",
    "string_type": "text",
    "tuple_type": "a list",
}
"""By pydantic's name of the error, whose context fills it in."""


def describe(error: ValidationError, file: str, overrides: Mapping[str, Any]) -> str:
    """All that is wrong, as one sentence.

    Args:
        error: of the settings.
        file: what to call the source of all that comes neither from the command line nor from a variable.
        overrides: nested values from the command line.
    """
    wrong: dict[str, list[str]] = {}
    for item in error.errors(include_url=False):
        source = _source(item["loc"], overrides) or file
        wrong.setdefault(source, []).append(_sentence(item))
    return "; ".join(f"{source}: {'; '.join(sentences)}" for source, sentences in wrong.items())


def _source(location: tuple[int | str, ...], overrides: Mapping[str, Any]) -> str | None:
    """The command line, or the variable that a value comes from."""
    section, *rest = (*location, "")
    if rest and rest[0] in overrides.get(str(section), {}):
        return "command line"
    variables = {name.upper(): name for name, value in os.environ.items() if value}
    return next((variables[name] for name in _variables_of(location) if name in variables), None)


def _variables_of(location: tuple[int | str, ...]) -> Iterable[str]:
    """Names of the variables that can hold a value, the closest first."""
    for length in range(len(location), 0, -1):
        yield (ENV_PREFIX + ENV_DELIMITER.join(map(str, location[:length]))).upper()


def _sentence(item: ErrorDetails) -> str:
    setting = ".".join(map(str, item["loc"]))
    return f"{setting}: {_fault(item)}" if setting else _fault(item)


def _fault(item: ErrorDetails) -> str:
    kind, context = item["type"], item.get("ctx", {})
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return "there is no such setting"
    if kind == "value_error":
        return str(context["error"])
    if kind == "string_pattern_mismatch":  # it may hold a password
        return f"expected text that matches {context['pattern']}"
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind].format(**context)}, found {reprlib.repr(item['input'])}"
    return item["msg"]
