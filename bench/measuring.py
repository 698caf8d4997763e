"""What the commands of all benchmarks do: measure what was asked for, each in a folder of its own."""

import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.figures import Figure
from demo.processes import REPOSITORY
from service_kit.terminal.command import BadParameter, echo

Measure = Callable[[Path], list[Figure]]
"""Measures in an empty folder."""


def measured(measures: Mapping[str, Measure], only: str) -> tuple[list[Figure], str]:
    """The figures of those that are asked for, and a sentence on the machine.

    only: their names, with commas between. Raises BadParameter: one of them is none.
    """
    chosen = only.split(",")
    if strangers := [name for name in chosen if name not in measures]:
        raise BadParameter(f"{', '.join(strangers)}: there are {', '.join(measures)}")
    # Beside the code and not in the system's folder for temporary files, which is often memory.
    state = REPOSITORY / ".state"
    state.mkdir(exist_ok=True)
    figures: list[Figure] = []
    started, load = time.monotonic(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=state, prefix="bench-", ignore_cleanup_errors=True) as folder:
        for name in chosen:
            place = Path(folder) / name
            place.mkdir()
            figures += measures[name](place)
            echo(f"{name} measured after {time.monotonic() - started:.0f} s", err=True)
    machine = (
        f"Python {platform.python_version()} on {os.cpu_count()} cores. "
        f"Load average {load:.1f} before, {os.getloadavg()[0]:.1f} after."
    )
    return figures, machine
