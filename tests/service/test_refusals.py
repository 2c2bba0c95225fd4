"""When the refusal of a moment ago holds for another request too."""

import pytest

from service.errors import Overloaded
from service.refusals import HOLDS_S, RecentRefusals

NOW = 100.0
REFUSAL = Overloaded("the answer would come too late", 0.08)


@pytest.fixture
def refusals() -> RecentRefusals:
    refusals = RecentRefusals(default_timeout_ms=40)
    refusals.remember("a", NOW, 0.0495, REFUSAL)  # what was left of 50 ms
    return refusals


@pytest.mark.parametrize(
    ("body", "refused"),
    [
        (b'{"query": "drill", "timeout_ms": 50}', True),
        (b'{"query": "drill", "timeout_ms":\n 20}', True),
        (b'{"query": "drill", "timeout_ms": 51}', False),
        (b'{"query": "drill"}', True),
        (b'{"query": "\\"timeout_ms\\": 9000", "timeout_ms": 50}', True),
        (b'{"timeout_ms": 9000, "query": "drill", "timeout_ms": 50}', False),
    ],
    ids=["as much", "less", "more", "the default, which is less", "in a string", "twice: the larger counts"],
)
def test_holds_for_a_request_that_gives_no_more_time(refusals: RecentRefusals, body: bytes, refused: bool):
    assert (refusals.for_body(body, "a", NOW) is REFUSAL) == refused


def test_holds_for_its_caller_alone_and_for_a_moment_only(refusals: RecentRefusals):
    body = b'{"query": "drill", "timeout_ms": 50}'
    assert refusals.for_body(body, "b", NOW) is None
    assert refusals.for_body(body, "a", NOW + HOLDS_S / 2) is REFUSAL
    assert refusals.for_body(body, "a", NOW + HOLDS_S) is None
    assert refusals.for_body(body, "a", NOW) is None  # forgotten
