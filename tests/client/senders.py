"""Finds the program that sends what lies in a folder."""

import time
from pathlib import Path

from recording.producing.courier import SENDER_LOCK


def sender_of(state_dir: Path, within_seconds: float = 60) -> int:
    """The process that holds the sender's lock, once it has started."""
    until = time.monotonic() + within_seconds
    while not (told := (state_dir / "spool" / SENDER_LOCK).read_text()) and time.monotonic() < until:
        time.sleep(0.02)
    return int(told)
