"""Plain requests, recognised without a parser: the one that the service is there for, `POST /retrieve`, and changes.

Only what cannot be understood in two ways is recognised; `service.connection` sends all else the general way.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

MAX_PLAIN_HEADER_BYTES = 8_192
"""Of one that is recognised here, and whose header is remembered."""
MAX_LENGTH_DIGITS = 9

REQUEST_LINE = b"POST /retrieve HTTP/1.1\r\n"
_HEAD = re.compile(rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*\r\n)+")
_FIELDS = re.compile(
    rb"^(content-length|x-hlm-caller|x-hlm-release|traceparent|authorization"
    rb"|connection|transfer-encoding|expect|upgrade|te|trailer)"
    rb":([^\r\n]*)\r$",  # white space around it is stripped in Python: a pattern that does takes quadratic time
    re.IGNORECASE | re.MULTILINE,
)
_KNOWN = ("x-hlm-caller", "x-hlm-release", "traceparent", "authorization")
"""Fields of a `Head`, in its order."""


@dataclass(frozen=True, slots=True)
class Head:
    """What a plain request's header says that matters here."""

    content_length: int
    caller: str | None
    release: str | None
    traceparent: str | None
    authorization: str | None = None


@lru_cache(maxsize=1_024)  # a client's headers hardly change, and to parse them costs more than to look them up
def read_head(head: bytes) -> Head | None:
    """Read the header fields of a request with a body, each ended by CRLF; None for what must go the general way."""
    if _HEAD.fullmatch(head) is None:
        return None
    found: dict[str, str] = {}
    for name, value in _FIELDS.findall(head):
        key = name.lower().decode()
        if key in found:
            return None
        found[key] = value.strip(b" \t").decode("latin-1")
    length = found.pop("content-length", "")
    is_number = length.isascii() and length.isdigit() and len(length) <= MAX_LENGTH_DIGITS
    if not is_number or found.pop("connection", "keep-alive").lower() != "keep-alive":
        return None
    known = Head(int(length), *(found.pop(key, None) for key in _KNOWN))
    return None if found else known
