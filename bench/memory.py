"""What the system says of a process's memory."""

import re
from pathlib import Path
from typing import Literal


def memory_mb(which: Literal["VmRSS", "VmHWM"], pid: int | Literal["self"] = "self") -> float:
    """VmRSS: the memory that a process has now; VmHWM: the most that it ever had. In MiB."""
    found = re.search(rf"^{which}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="ascii"), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024
