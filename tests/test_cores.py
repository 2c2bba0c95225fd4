"""Thread counts follow the container's quota."""

import os
from pathlib import Path

import pytest

from cores import usable_cores

ALLOWED = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("max 100000", ALLOWED),
        ("100000 100000", 1),
        ("50000 100000", 1),
        ("150000 100000", min(2, ALLOWED)),
        ("9900000 100000", ALLOWED),
        ("nonsense", ALLOWED),
        (None, ALLOWED),
    ],
    ids=["no quota", "one core", "half a core", "one and a half", "more than there are", "unreadable", "no such file"],
)
def test_the_quota_is_rounded_up_and_never_beyond_the_affinity(tmp_path: Path, content: str | None, expected: int):
    path = tmp_path / "cpu.max"
    if content is not None:
        path.write_text(content)
    assert usable_cores(path) == expected
