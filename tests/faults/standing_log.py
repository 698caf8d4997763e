"""A service whose stderr is a small pipe: until it listens somebody reads it, and from then on nobody does."""

import fcntl
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress

from demo.processes import ADDRESS, REPOSITORY, Service, environment

PIPE_BYTES = 4096


class LogPipe:
    """The end of the pipe at which a service's log would be read."""

    def __init__(self) -> None:
        self._read_end, self._write_end = os.pipe()
        fcntl.fcntl(self._write_end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._closed = False

    def start(self, module: str, env: Mapping[str, str], *args: str) -> Service:
        """Runs `python -m module args`, whose log goes into the pipe, and returns once it listens."""
        argv = [sys.executable, "-m", module, *args]
        process = subprocess.Popen(
            argv, env=environment(env), stdin=subprocess.DEVNULL, stderr=self._write_end, cwd=REPOSITORY
        )
        os.close(self._write_end)
        service = Service(process, tempfile.TemporaryFile())  # noqa: SIM115 - it lives as long as the service
        log = b""
        while not (match := re.search(ADDRESS, log.decode(errors="replace"))):
            read = os.read(self._read_end, PIPE_BYTES)
            if not read:
                raise RuntimeError(f"the service ended before it listened: {log.decode(errors='replace')}")
            log += read
        service.address = match[1] or match[2]
        return service

    def close(self) -> None:
        """From now on nobody can read: who writes gets EPIPE."""
        if not self._closed:
            os.close(self._read_end)
            self._closed = True

    def fill(self) -> None:
        """From now on each line has to wait: lines alone leave a gap where the next write is larger."""
        end = os.open(f"/proc/self/fd/{self._read_end}", os.O_WRONLY | os.O_NONBLOCK)
        with suppress(BlockingIOError):
            while True:
                os.write(end, b" ")
        os.close(end)
