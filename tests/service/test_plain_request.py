"""Which headers are those of a plain request; all others are left to the parser."""

import pytest

from service.plain_request import Head, read_head

PLAIN = Head(5, None, None, None)
LONG_GAP = "a" + " \t" * 3_500 + "b"


@pytest.mark.parametrize(
    ("lines", "head"),
    [
        (["Content-Length: 5"], PLAIN),
        (["Host: x", "Content-Type: application/json", "content-length:5", "Accept: */*"], PLAIN),
        (["CONTENT-LENGTH: \t5 \t"], PLAIN),
        (["Content-Length: 005"], PLAIN),
        (["Content-Length: 0"], Head(0, None, None, None)),
        (["Content-Length: 5", "Connection: keep-alive"], PLAIN),
        (["Content-Length: 5", "Connection: Keep-Alive"], PLAIN),
        (["Content-Length: 5", "X-HLM-Caller: web"], Head(5, "web", None, None)),
        (["x-hlm-release: canary", "Content-Length: 5"], Head(5, None, "canary", None)),
        (["Content-Length: 5", "traceparent: 00-1-2-01"], Head(5, None, None, "00-1-2-01")),
        (["Content-Length: 5", "X-HLM-Caller:"], Head(5, "", None, None)),
        (["Content-Length: 5", "X-HLM-Caller: säge"], Head(5, "säge", None, None)),
        (["Content-Length: 5", "X-HLM-Caller: a" + " \t" * 3_500 + "b" + "\t " * 500], Head(5, LONG_GAP, None, None)),
        (["Content-Length:" + " " * 7_900 + "5" + "\t" * 100], PLAIN),
        (["Content-Length: 5", "X-HLM-Release:" + " \t" * 3_900], Head(5, None, "", None)),
        (["Content-Length: 5", "X-HLM-Caller: \xa0a\x85 \t"], Head(5, "\xa0a\x85", None, None)),
        (["Content-Length: 5", "X-Note: content-length: 9"], PLAIN),
        (["Content-Length: 5", "X-Content-Length: 9", "Content-Length-X: 9"], PLAIN),
    ],
)
def test_a_plain_header_is_read(lines: list[str], head: Head):
    assert read_head("".join(line + "\r\n" for line in lines).encode("latin-1")) == head


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"Host: x\r\n",
        b"Content-Length: 5",
        b"Content-Length: 5\n",
        b"Content-Length: 5\r",
        b"Content-Length: \r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length: -5\r\n",
        b"Content-Length: 5, 5\r\n",
        b"Content-Length: 5 5\r\n",
        b"Content-Length: 0x5\r\n",
        b"Content-Length: 5.0\r\n",
        b"Content-Length: \xb2\r\n",
        b"Content-Length: " + b"9" * 10 + b"\r\n",
        b"Content-Length: " + b"0" * 5_000 + b"5\r\n",
        b"Content-Length: 5\r\nContent-Length: 5\r\n",
        b"Content-Length: 5\r\ncontent-length: 6\r\n",
        b"Content-Length : 5\r\n",
        b" Content-Length: 5\r\n",
        b"Content-Length:\r\n 5\r\n",
        b"Content-Length: 5\r\nX: y\r\n z\r\n",
        b"Content-Length: 5\r\nX: y\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 5\r\nX: y\rTransfer-Encoding: chunked\r\n",
        b"Content-Length: 5\r\nX: \x00\r\n",
        b"Content-Length: 5\r\nX: \x7f\r\n",
        b"Content-Length: 5\r\n: y\r\n",
        b"Content-Length: 5\r\nX\r\n",
        b"Content-Length: 5\r\nX Y: z\r\n",
        b"Content-Length: 5\r\n\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding: identity\r\n",
        b"Content-Length: 5\r\nExpect: 100-continue\r\n",
        b"Content-Length: 5\r\nUpgrade: h2c\r\n",
        b"Content-Length: 5\r\nTE: trailers\r\n",
        b"Content-Length: 5\r\nTrailer: X\r\n",
        b"Content-Length: 5\r\nConnection: close\r\n",
        b"Content-Length: 5\r\nConnection: keep-alive, upgrade\r\n",
        b"Content-Length: 5\r\nConnection: keep-alive\r\nConnection: close\r\n",
        b"Content-Length: 5\r\nX-HLM-Caller: a\r\nX-HLM-Caller: b\r\n",
    ],
)
def test_what_could_be_understood_in_two_ways_is_none(head: bytes):
    assert read_head(head) is None
