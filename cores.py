"""How many cores this process may use, and which threads let others go first on them.

Thread counts follow the container's quota, not the host's cores.
"""

import contextlib
import math
import os
import threading
from pathlib import Path

NICE = 10
"""Requests get nine tenths of a core that both want. Not SCHED_IDLE: such a thread may wait for its core while it holds
the interpreter's lock, and all requests with it."""

CGROUP_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")
"""Version 2 control groups: `QUOTA PERIOD` in microseconds, or `max PERIOD`."""


def usable_cores(cpu_max: Path = CGROUP_CPU_MAX) -> int:
    """Whole cores by affinity and control-group quota, rounded up; at least 1."""
    allowed = len(os.sched_getaffinity(0))
    try:
        quota, period = cpu_max.read_text().split()
    except (OSError, ValueError):  # no control groups, or version 1, whose file is elsewhere
        return allowed
    if quota == "max":
        return allowed
    return max(1, min(allowed, math.ceil(int(quota) / int(period))))


def give_way(nice: int = NICE) -> None:
    """Make the calling thread nicer than those that answer requests, by `nice`."""
    with contextlib.suppress(OSError):  # a thread may always be made nicer, but a sandbox may say no
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)
