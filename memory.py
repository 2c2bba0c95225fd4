"""How much memory this process may still take, and how it gives freed memory back: the container's limit counts."""

import ctypes
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
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
