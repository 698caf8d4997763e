"""What a hook costs an agent: `onrecord-hook` as a whole process, with a door and with none.

By turns with the same Python that does nothing (`python -c pass`), since its start is most of it.
"""

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bench.services import run_service

EVENT = json.dumps(
    {
        "session_id": "a",
        "prompt_id": "p",
        "hook_event_name": "PreToolUse",
        "tool_name": "Bash",
        "tool_input": {"command": "make test", "description": "x" * 200},
    }
).encode()


@dataclass(frozen=True, slots=True)
class Latency:
    """Of whole processes, in milliseconds."""

    p50: float
    p99: float


def measure(folder: Path, count: int) -> dict[str, Latency]:
    """Latencies by what was run, `count` processes of each."""
    raise NotImplementedError
