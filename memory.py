"""Memory of this process: how much it may still take, how it is given back, and in pages of which size it lies."""

import ctypes
import re
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
SMAPS = Path("/proc/self/smaps")
MADV_HUGEPAGE, MADV_COLLAPSE = 14, 25
HUGE_PAGE_BYTES = 2 * 1024 * 1024
FILLED = 0.95
_ENTRY = re.compile(
    r"^(?P<start>[0-9a-f]+)-(?P<end>[0-9a-f]+) rw-p \S+ \S+ 0 *\n(?:(?!Rss:)\w+: .*\n)*Rss: +(?P<rss>\d+) kB$",
    re.MULTILINE,
)
"""Writable, private, without a file and without a name such as that of a stack."""
CGROUP = Path("/sys/fs/cgroup")
"""Version 2 control groups, as a container sees its own."""


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


def use_huge_pages() -> int:
    """Move the large blocks that this process has filled into huge pages; gives the bytes that it was tried for.

    A search hops through the whole graph, and most hops miss the processor's cache of addresses where pages have 4 KiB:
    docs/experiments.md, "huge pages". It costs a copy, once; where the system grants none (transparent_hugepage=never),
    nothing happens.
    """
    libc = ctypes.CDLL(None)
    tried = 0
    for start, length in filled_blocks(_read(SMAPS)):
        if libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), MADV_HUGEPAGE) == 0:
            # At once where the kernel can, which is since Linux 6.1; otherwise it does so in its own time.
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), MADV_COLLAPSE)
            tried += length
    return tried


def filled_blocks(smaps: str) -> list[tuple[int, int]]:
    """Start and length of private memory, cut to whole huge pages, as `/proc/PID/smaps` has it.

    Only blocks that are in use nearly to the last page: filling the others up would take memory that nobody asked for.
    """
    blocks = []
    for entry in _ENTRY.finditer(smaps):
        start, end = int(entry["start"], 16), int(entry["end"], 16)
        first, last = -(-start // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES, end // HUGE_PAGE_BYTES * HUGE_PAGE_BYTES
        if last > first and int(entry["rss"]) * 1024 >= FILLED * (end - start):
            blocks.append((first, last - first))
    return blocks


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


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # another system than Linux
        return ""
