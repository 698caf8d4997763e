"""How many cores there are for this process."""

import os
from pathlib import Path


def cores() -> int:
    """The cores that this process may use: those that it may run on, and what its control group allows."""
    allowed = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return allowed
    return allowed if quota == "max" else max(1, min(allowed, int(quota) // int(period)))
