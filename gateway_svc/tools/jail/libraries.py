"""The files that a program needs to start, so that a jail can show it nothing else of the system."""

import os
import re
import subprocess

_LIBRARY = re.compile(r"(?:=> |^\s*)(/\S+) \(0x", re.MULTILINE)
_SECONDS = 10


def files_of(program: str) -> tuple[str, ...]:
    """The program, its loader and its libraries, as ld.so(8) tells them with LD_TRACE_LOADED_OBJECTS.

    Only the program where that says nothing, as for one that is linked statically.
    """
    try:
        told = subprocess.run(
            [program, "--version"],
            env={"LD_TRACE_LOADED_OBJECTS": "1", "PATH": os.defpath},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        told = b""
    return (program, *_LIBRARY.findall(os.fsdecode(told)))
