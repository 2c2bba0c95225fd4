"""Head-room follows the container's limit, and page cache does not use it up."""

from pathlib import Path

import pytest

from memory import available_bytes, return_freed_memory

GIB = 1 << 30
MEMINFO = f"MemTotal: {32 * GIB // 1024} kB\nMemFree: 1 kB\nMemAvailable: {8 * GIB // 1024} kB\n"


def write_group(directory: Path, limit: str, used: int, idle_cache: int) -> None:
    (directory / "memory.max").write_text(f"{limit}\n")
    (directory / "memory.current").write_text(f"{used}\n")
    (directory / "memory.stat").write_text(f"anon {used - idle_cache}\ninactive_file {idle_cache}\nactive_file 5\n")


@pytest.mark.parametrize(
    ("limit", "used", "idle_cache", "expected"),
    [
        (str(4 * GIB), 3 * GIB, 0, GIB),
        (str(4 * GIB), 4 * GIB, 3 * GIB, 3 * GIB),
        (str(64 * GIB), 3 * GIB, 0, 8 * GIB),
        ("max", 3 * GIB, 0, 8 * GIB),
        (str(GIB), 2 * GIB, 0, 0),
    ],
    ids=["limit", "limit full of page cache", "host has less", "no limit", "over the limit"],
)
def test_the_lesser_of_host_and_container_counts(tmp_path: Path, limit: str, used: int, idle_cache: int, expected: int):
    (tmp_path / "meminfo").write_text(MEMINFO)
    write_group(tmp_path, limit, used, idle_cache)
    assert available_bytes(tmp_path / "meminfo", tmp_path) == expected


def test_without_control_groups_the_host_counts(tmp_path: Path):
    (tmp_path / "meminfo").write_text(MEMINFO)
    assert available_bytes(tmp_path / "meminfo", tmp_path) == 8 * GIB


def test_a_system_that_does_not_say_is_none(tmp_path: Path):
    (tmp_path / "meminfo").write_text("MemTotal: 1 kB\n")
    assert available_bytes(tmp_path / "meminfo", tmp_path) is None
    assert available_bytes(tmp_path / "nowhere", tmp_path) is None


def test_this_machine_has_memory_and_takes_some_back():
    assert (available_bytes() or 1) > 0
    return_freed_memory()
