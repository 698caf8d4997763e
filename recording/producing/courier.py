"""Starts the program that sends what producers append, one for all processes of a state directory."""

import fcntl
import json
import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from recording.locks import lock_file
from recording.log import get_logger

log = get_logger(__name__)

SENDER_LOCK = "sender"
"""The file below the spools that whoever sends other processes' rows has locked: onrecord-send, or a gateway."""
LOG = "sender.log"

_STARTING_LOCK = "sender-start"
_START_SECONDS = 10.0
_FIRST_PAUSE_SECONDS = 1.0
_MAX_PAUSE_SECONDS = 60.0

_PROGRAM = """\
import json, sys
orders = json.load(sys.stdin)
sys.path += [folder for folder in orders.pop("path") if folder not in sys.path]
from recording.following.program import run_detached
run_detached(orders)
"""
"""Paths of the application come last, so that none of its modules hides one of Python's own."""


class SenderProgram:
    """The program for one state directory."""

    def __init__(self, root: Path, orders: Mapping[str, Any] | None) -> None:
        """root: the parent of all spool folders. orders: of run_detached(); None starts none."""
        self._root = root
        self._orders = orders
        self._pause = _FIRST_PAUSE_SECONDS
        self._not_before = 0.0

    def is_running(self) -> bool:
        """Whether a process sends what lies below root."""
        try:
            fd = os.open(self._root / SENDER_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            os.close(fd)
        return False

    def ensure(self) -> None:
        """Starts the program, unless one runs, or another process is about to start it. Never raises."""
        if self._orders is None or time.monotonic() < self._not_before or self.is_running():
            return
        starting = None
        with suppress(OSError):
            starting = lock_file(self._root / _STARTING_LOCK)
        if starting is None:
            return
        try:
            if self.is_running():
                return
            self._start(self._orders)
            self._pause = _FIRST_PAUSE_SECONDS
        except (OSError, subprocess.SubprocessError) as error:
            self._not_before = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, _MAX_PAUSE_SECONDS)
            log.error("sender.not_started", reason=str(error), hint="run onrecord-send for this folder")
        finally:
            os.close(starting)

    def _start(self, orders: Mapping[str, Any]) -> None:
        """The process that is started here ends at once, and leaves one whose parent is init.

        A server that reaps children it does not know finds none, and one that ends its children does not end it.
        """
        program = subprocess.Popen(
            [find_python(), "-P", "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        paths = [str(Path(path).absolute()) for path in sys.path if path]
        # By a pipe, where nobody reads a token on the list of processes.
        with suppress(BrokenPipeError):
            program.communicate(json.dumps({**orders, "path": paths}).encode(), timeout=_START_SECONDS)
        if program.returncode:
            raise OSError(f"{program.args!r} ended with code {program.returncode}; see {self._root / LOG}")


def find_python() -> str:
    """The interpreter of this process. sys.executable is the server itself where a server has Python in it (uWSGI).

    Raises:
        FileNotFoundError: there is none.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    names = (f"python{version}", f"python{sys.version_info.major}", "python")
    folders = [
        Path(sys.prefix, "bin"),
        Path(sys.base_prefix, "bin"),
        Path(sysconfig.get_config_var("BINDIR") or "/usr/bin"),
    ]
    told = [sys.executable, getattr(sys, "_base_executable", "")]
    likely = [Path(path) for path in told if path and Path(path).name.startswith(("python", "pypy"))]
    for path in [*likely, *(folder / name for folder in folders for name in names)]:
        if os.access(path, os.X_OK) and path.is_file():
            return str(path)
    raise FileNotFoundError(f"no python{version} in {', '.join(map(str, folders))}")
