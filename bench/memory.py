"""A process's memory, as the system reports it."""

import re
from pathlib import Path
from typing import Literal


def memory_mb(which: Literal["VmRSS", "VmHWM"], pid: int | Literal["self"] = "self") -> float:
    """A field of /proc/PID/status in MiB: VmRSS is the current resident memory, VmHWM its peak."""
    found = re.search(rf"^{which}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="ascii"), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024
