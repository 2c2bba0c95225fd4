"""Head-room follows the container's limit, and page cache does not use it up."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from memory import available_bytes, return_freed_memory

GIB = 1 << 30
GRANTED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
ASKING = """
import json, os, re, sys
from pathlib import Path
from memory import ask_for_huge_pages

ask_for_huge_pages()
block = bytearray(b"x") * (64 << 20)
[kibibytes] = re.findall(r"AnonHugePages: +(\\d+) kB", Path("/proc/self/smaps_rollup").read_text())
print(json.dumps([os.getpid(), os.environ["GLIBC_TUNABLES"], sys.argv[1:], int(kibibytes) // 1024]))
"""
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


@pytest.mark.skipif("[never]" in GRANTED.read_text() if GRANTED.exists() else True, reason="no huge pages are granted")
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "glibc.malloc.hugetlb=1"),
        ({"GLIBC_TUNABLES": "glibc.malloc.check=0"}, "glibc.malloc.check=0:glibc.malloc.hugetlb=1"),
    ],
    ids=["none wanted", "others wanted"],
)
def test_large_blocks_of_a_process_that_asks_lie_in_huge_pages(given: dict[str, str], expected: str):
    command = [sys.executable, "-c", ASKING, "--an", "option"]
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"} | given
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        pid, tunables, arguments, megabytes = json.loads(process.communicate(timeout=60)[0])
    assert (pid, tunables, arguments) == (process.pid, expected, ["--an", "option"])
    assert megabytes >= 60


def test_a_wish_about_huge_pages_is_left_as_it_is():
    wish = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}
    code = "import os, memory; memory.ask_for_huge_pages(); print(os.environ['GLIBC_TUNABLES'])"
    said = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | wish, capture_output=True, check=True, timeout=60
    )
    assert said.stdout.decode().strip() == wish["GLIBC_TUNABLES"]
