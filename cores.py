"""How many cores this process may use: thread counts follow the container's quota, not the host's cores."""

import math
import os
from pathlib import Path

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
