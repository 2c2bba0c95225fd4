"""Bodies that `POST /retrieve` must refuse, each with the status it must get.

400: not a JSON document. 413: longer than `limits.max_body_bytes`, by default 65,536. 422: JSON, but a field is wrong.
Where RFC 8259 or the interface leaves room (NaN is not JSON, yet many parsers read it), both 400 and 422 are right.
Repeated names in an object are left out: RFC 8259 permits them and leaves open which one counts.
"""

import json
from typing import Any

Expected = int | tuple[int, ...]
Case = tuple[str, bytes, Expected]

MAX_BODY_BYTES = 65_536
MAX_QUERY_CHARACTERS = 512
EITHER = (400, 422)

GOOD = (
    b'{"query": "cordless drill 18v", "top_k": 10, "timeout_ms": 500, "request_id": "r-1", '
    b'"fields": ["title", "advertiser_id"]}'
)
"""A request with every field, from which many of the bad ones are made."""

OF_ANOTHER_TYPE: dict[str, str] = {
    "null": "null",
    "true": "true",
    "false": "false",
    "int": "7",
    "negative": "-7",
    "fraction": "1.5",
    "integral fraction": "5.0",
    "exponent": "1e2",
    "string": '"x"',
    "digits": '"5"',
    "empty string": '""',
    "list": "[]",
    "nested list": "[[1]]",
    "object": "{}",
    "NaN": "NaN",
    "Infinity": "Infinity",
    "-Infinity": "-Infinity",
    "1e400": "1e400",
    "beyond 64 bits": "18446744073709551616",
    "5,000 digits": "9" * 5_000,
}
"""JSON text of values, by name; `_ACCEPTED` says which of them are right for which field."""

_ACCEPTED: dict[str, set[str]] = {
    "query": {"string", "digits"},
    "top_k": {"int"},
    "timeout_ms": {"int", "null"},
    "request_id": {"string", "digits", "null"},
    "fields": {"list"},
}
_NOT_QUITE_JSON = {"NaN", "Infinity", "-Infinity", "1e400", "beyond 64 bits", "5,000 digits"}


def _with(field: str, value: str) -> bytes:
    """A request that is right but for the JSON text of one field."""
    query = "" if field == "query" else '"query": "drill", '
    return f'{{{query}"{field}": {value}}}'.encode()


def _wrong_types() -> list[Case]:
    return [
        (f"{field} is {name}", _with(field, value), EITHER if name in _NOT_QUITE_JSON else 422)
        for field, accepted in _ACCEPTED.items()
        for name, value in OF_ANOTHER_TYPE.items()
        if name not in accepted
    ]


def _wrong_values() -> list[Case]:
    values: dict[str, dict[str, Any]] = {
        "query": {
            "spaces": "   ",
            "tab and newline": "\t\n",
            "no-break spaces": "\u00a0\u00a0",
            "ideographic spaces": "\u3000\u2003",
            "next line, which is white space": "\u0085",
            "one character too long": "x" * (MAX_QUERY_CHARACTERS + 1),
            "too long in words": "drill " * 100,
            "too long beyond ASCII": "ß" * (MAX_QUERY_CHARACTERS + 1),
            "too long in astral characters": "🔧" * (MAX_QUERY_CHARACTERS + 1),
            "60,000 characters": "x" * 60_000,
            "only control characters": "\u0001\u0002",
            **{f"with U+{ord(control):04X}": f"cordless{control}drill" for control in "\0\1\a\b\x0e\x1b\x1f\x7f\x9b"},
        },
        "top_k": {"0": 0, "-1": -1, "1001": 1_001, "the largest 64-bit": 2**63 - 1, "the smallest 64-bit": -(2**63)},
        "timeout_ms": {"0": 0, "-1": -1, "10001": 10_001, "a day": 86_400_000},
        "request_id": {
            "with a header in it": "r-1\r\nX-Evil: 1",
            "with NUL": "r\u0000",
            "10,000 characters": "r" * 10_000,
        },
        "fields": {
            "an unknown name": ["title", "password"],
            "an empty name": [""],
            "a name in capitals": ["TITLE"],
            "a name with a space": ["title "],
            "a number": [1],
            "null": [None],
            "a list": [["title"]],
            "an object": [{"title": True}],
            "a bare name": "title",
            "names in an object": {"0": "title"},
        },
        "filters": {
            "a bare name": "us",
            "a list": [{"market": "us"}],
            "unknown": {"colour": "red"},
            "market a number": {"market": 1},
            "market empty": {"market": ""},
            "device a list": {"device": ["mobile"]},
            "advertisers a bare name": {"exclude_advertisers": "a1"},
            "advertisers numbers": {"exclude_advertisers": [1]},
            "advertisers too many": {"exclude_advertisers": ["a"] * 1_001},
            "categories an object": {"exclude_categories": {"Toys": True}},
            "bid a string": {"min_bid": "0.2"},
            "bid negative": {"min_bid": -1},
            "cap of none": {"max_per_advertiser": 0},
            "cap a fraction": {"max_per_advertiser": 1.5},
            "offset of a week": {"utc_offset_minutes": 10_080},
        },
    }
    return [
        (f"{field}: {name}", json.dumps({"query": "drill"} | {field: value}).encode(), 422)
        for field, cases in values.items()
        for name, value in cases.items()
    ]


def _wrong_names() -> list[Case]:
    names = {
        "filter": {"market": "us"},
        "ef_search": 10,
        "Query": "x",
        "top-k": 5,
        "topK": 5,
        "": 1,
        "query ": "x",
        "__proto__": {"top_k": 5},
        "__class__": "x",
        "query\u0000": "x",
        "k" * 10_000: 1,
    }
    unknown: list[Case] = [
        (f"unknown field {name[:12]!r}", json.dumps({"query": "drill", name: value}).encode(), 422)
        for name, value in names.items()
    ]
    many = {f"x{number}": 0 for number in range(2_000)}
    return [
        *unknown,
        ("2,000 unknown fields", json.dumps({"query": "drill"} | many).encode(), 422),
        ("no query", b'{"top_k": 5}', 422),
        ("no field at all", b"{}", 422),
        ("several wrong fields", b'{"query": "", "top_k": 0, "timeout_ms": 0, "fields": 1}', 422),
    ]


def _not_objects() -> list[Case]:
    request = GOOD.decode()
    values = ["null", "true", "false", "0", "-1.5", '""', '"drill"', "[]", '["drill"]', f"[{request}]", "[[[]]]"]
    return [
        *((f"top level is {value[:20]}", value.encode(), 422) for value in values),
        ("top level is a request as a string", json.dumps(request).encode(), 422),
        *((f"top level is {value}", value.encode(), EITHER) for value in ("NaN", "Infinity", "-Infinity", "1e400")),
    ]


def _truncated() -> list[Case]:
    """The good request, cut after every fourth byte; the first of them is the empty body."""
    return [(f"cut after {end} bytes", GOOD[:end], 400) for end in range(0, len(GOOD), 4)]


def _not_json() -> list[Case]:
    texts = {
        "white space only": b" \r\n\t ",
        "single quotes": b"{'query': 'drill'}",
        "names without quotes": b'{query: "drill"}',
        "comma at the end": b'{"query": "drill",}',
        "comma at the end of a list": b'{"query": "drill", "fields": ["title",]}',
        "no comma": b'{"query": "drill" "top_k": 5}',
        "no colon": b'{"query" "drill"}',
        "comment before": b'/* hi */ {"query": "drill"}',
        "comment after": b'{"query": "drill"} // hi',
        "comment within": b'{"query": "drill" # hi\n}',
        "words of Python": b'{"query": "drill", "timeout_ms": None}',
        "True of Python": b'{"query": "drill", "top_k": True}',
        "undefined": b'{"query": undefined}',
        "leading zero": b'{"query": "drill", "top_k": 010}',
        "plus sign": b'{"query": "drill", "top_k": +5}',
        "hexadecimal": b'{"query": "drill", "top_k": 0x10}',
        "digits with underscores": b'{"query": "drill", "top_k": 1_000}',
        "point without digits": b'{"query": "drill", "top_k": 5.}',
        "minus alone": b'{"query": "drill", "top_k": -}',
        "lower-case nan": b'{"query": "drill", "top_k": nan}',
        "unknown escape": rb'{"query": "dr\xill"}',
        "short escape": rb'{"query": "drill \u12"}',
        "escape that is not hexadecimal": rb'{"query": "drill \uZZZZ"}',
        "lone high surrogate": rb'{"query": "drill \ud83d"}',
        "lone low surrogate": rb'{"query": "drill \udd27"}',
        "surrogates in the wrong order": rb'{"query": "drill \udd27\ud83d"}',
        "two high surrogates": rb'{"query": "drill \ud83d\ud83d"}',
        "lone surrogate in a name": rb'{"query": "drill", "\ud800": 1}',
        **{f"raw U+{code:04X} in a string": b'{"query": "dr%cill"}' % code for code in (0, 1, 7, 8, 9, 10, 13, 27, 31)},
        "NUL after": GOOD + b"\x00",
        "NUL before": b"\x00" + GOOD,
        "only NUL": b"\x00" * 100,
        "two documents": GOOD + GOOD,
        "two documents on two lines": GOOD + b"\n" + GOOD,
        "brace after": GOOD + b"}",
        "word after": GOOD + b" drill",
        "form": b"query=drill&top_k=5",
        "multipart": b'--x\r\nContent-Disposition: form-data; name="query"\r\n\r\ndrill\r\n--x--\r\n',
        "XML": b"<query>drill</query>",
        "YAML": b"query: drill\ntop_k: 5\n",
        "plain text": b"cordless drill",
        "gzip": bytes.fromhex("1f8b08000000000000ff") + GOOD,
        "UTF-16": GOOD.decode().encode("utf-16"),
        "UTF-16 without a mark": GOOD.decode().encode("utf-16-le"),
        "UTF-32": GOOD.decode().encode("utf-32"),
        "byte order mark": b"\xef\xbb\xbf" + GOOD,
        "Latin-1": '{"query": "Säge"}'.encode("latin-1"),
        "stray continuation byte": b'{"query": "drill\x80"}',
        "cut UTF-8 sequence": b'{"query": "drill\xe2\x82"}',
        "overlong UTF-8": b'{"query": "drill\xc0\xaf"}',
        "surrogate as UTF-8": b'{"query": "drill\xed\xa0\x80"}',
        "beyond the last code point": b'{"query": "drill\xf4\x90\x80\x80"}',
        "byte FF": b'{"query": "drill\xff"}',
        "byte FF in a name": b'{"query": "drill", "\xff": 1}',
        "every byte": bytes(range(256)),
    }
    return [(name, body, 400) for name, body in texts.items()]


def _deep() -> list[Case]:
    depth = 10_000
    lists, objects = b"[" * depth, b'{"query":' * 6_000
    return [
        ("deep lists", lists + b"]" * depth, 400),
        ("deep lists, never closed", lists, 400),
        ("deep objects", objects + b"1" + b"}" * 6_000, 400),
        ("deep objects, never closed", objects, 400),
        ("deep query", b'{"query": %s}' % (lists + b"]" * depth), 400),
        ("deep fields", b'{"query": "drill", "fields": %s}' % (lists + b"]" * depth), 400),
        ("deep unknown field", b'{"query": "drill", "x": %s}' % (lists + b"]" * depth), 400),
        ("ten levels", b'{"query": "drill", "fields": %s}' % (b"[" * 10 + b"]" * 10), 422),
    ]


def _huge() -> list[Case]:
    start = b'{"query": "drill"'
    return [
        ("one byte over the limit", start + b" " * (MAX_BODY_BYTES - len(start)) + b"}", 413),
        ("query over the limit", b'{"query": "%s"}' % (b"x" * MAX_BODY_BYTES), 413),
        ("a megabyte of spaces", b" " * 1_000_000, 413),
        ("a megabyte of NUL", b"\x00" * 1_000_000, 413),
        ("four megabytes of fields", b'{"fields": [%s""]}' % (b'"title",' * 500_000), 413),
        ("100,000 open lists", b"[" * 100_000, 413),
    ]


MALFORMED: list[Case] = [
    *_wrong_types(),
    *_wrong_values(),
    *_wrong_names(),
    *_not_objects(),
    *_truncated(),
    *_not_json(),
    *_deep(),
    *_huge(),
]
"""Name, body and the status or statuses that are right for it; the same in every run."""
