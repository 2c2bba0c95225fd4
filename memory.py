"""Memory of this process: how much it may still take, how it is given back, and in pages of which size it lies."""

import contextlib
import ctypes
import os
import sys
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
"""Version 2 control groups, as a container sees its own."""
TUNABLES, HUGE_PAGES = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"


def available_bytes(meminfo: Path = MEMINFO, cgroup: Path = CGROUP) -> int | None:
    """Bytes that can be taken without swapping or being killed; None where the system does not say.

    The lesser of what the host has and what the control group leaves. Page cache counts as free where the kernel would
    drop it first: reading artifacts to check their hashes fills it, and would otherwise use up the limit by itself.
    """
    found = [size for size in (_host_bytes(meminfo), _group_bytes(cgroup)) if size is not None]
    return min(found, default=None)


def return_freed_memory() -> None:
    """Hand freed memory back to the kernel, where the C library is glibc; it keeps what small blocks lay in."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def ask_for_huge_pages() -> None:
    """Start this process again with an allocator that asks for huge pages, unless it does so already.

    A search hops through the whole graph, and most hops miss the processor's cache of addresses where pages have 4 KiB:
    docs/experiments.md, "huge pages". glibc reads what is wanted of it at its start alone; where there is another C
    library, or the system grants no huge pages, nothing changes.
    """
    tunables = os.environ.get(TUNABLES, "")
    if HUGE_PAGES in tunables:
        return
    os.environ[TUNABLES] = ":".join(filter(None, (tunables, f"{HUGE_PAGES}=1")))
    with contextlib.suppress(OSError):  # a sandbox may say no
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - itself


def _host_bytes(meminfo: Path) -> int | None:
    try:
        lines = meminfo.read_text().splitlines()
        [kibibytes] = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    except (OSError, ValueError):
        return None
    return int(kibibytes) * 1024


def _group_bytes(cgroup: Path) -> int | None:
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        used = int((cgroup / "memory.current").read_text())
        [idle_cache] = [
            int(line.split()[1])
            for line in (cgroup / "memory.stat").read_text().splitlines()
            if line.startswith("inactive_file ")
        ]
    except (OSError, ValueError):  # no control groups, the root's, or version 1, whose files are elsewhere
        return None
    return None if limit == "max" else max(0, int(limit) - used + idle_cache)
