"""Starts the services as real processes, and ends them in every possible way."""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

REPOSITORY = Path(__file__).resolve().parents[1]

ADDRESS = re.compile(r'service\.listening\W.*?address"?[=:] ?"?([^\s",}]+)|address": "([^"]+)".*"service\.listening"')

HTTP_ADDRESS = re.compile(r'"address": "([^"]+)", "event": "http.listening"')


class ServiceEnded(Exception):
    """The process ended before it listened; the message has its exit code and its stderr."""


class Service:
    """A service in its own process. Used as a context manager, it leaves no process behind."""

    def __init__(self, process: subprocess.Popen[bytes], stderr: IO[bytes]) -> None:
        self.process = process
        self.address = ""
        """host:port, once it listens."""
        self._stderr = stderr

    @property
    def http_address(self) -> str:
        """host:port of the door's HTTP, once it listens; empty for the other services."""
        found = HTTP_ADDRESS.search(self.stderr_text())
        return found[1] if found else ""

    @property
    def pid(self) -> int:
        return self.process.pid

    def stderr_text(self) -> str:
        """Its log: everything that it has written to stderr."""
        # Without seeking: the process shares the file position, and would overwrite its first lines.
        fd = self._stderr.fileno()
        return os.pread(fd, os.fstat(fd).st_size, 0).decode(errors="replace")

    def wait_until_listening(self, timeout: float = 90.0) -> None:
        """Waits for the log line `service.listening` and returns the address in it."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            ended = self.process.poll() is not None
            if match := ADDRESS.search(self.stderr_text()):
                self.address = match[1] or match[2]
                return
            if ended:
                raise ServiceEnded(f"exit code {self.process.returncode}\n{self.stderr_text()}")
            time.sleep(0.01)
        raise ServiceEnded(f"does not listen after {timeout} s\n{self.stderr_text()}")

    def terminate(self, timeout: float = 60.0) -> int:
        """Sends SIGTERM and returns the exit code."""
        self.process.terminate()
        return self.process.wait(timeout)

    def kill(self) -> None:
        """Kills it with SIGKILL and waits for its end."""
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.kill()
        self._stderr.close()


NOBODY = dict.fromkeys(("GATEWAY_AUDIT_TARGET", "INTAKE_AUDIT_TARGET"), "127.0.0.1:1")
"""Where a producer sends that is told nothing: at the settings' default somebody's own ledger may listen."""


def start_service(
    module: str,
    env: Mapping[str, str],
    *args: str,
    listen_seconds: float = 90,
    log: IO[bytes] | None = None,
    tree: Path = REPOSITORY,
    prefix: Sequence[str] = (),
) -> Service:
    """Runs `python -m module args` of a tree with env and returns once it listens. log: a file for its stderr.

    prefix: a program, with its arguments, that becomes Python.

    Nothing else of the caller's environment reaches it but what Python needs.

    Raises:
        ServiceEnded: it ended instead.
    """
    stderr = log or tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the service
    process = subprocess.Popen(
        [*prefix, sys.executable, "-m", module, *args],
        env=environment({**NOBODY, **env}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        cwd=tree,
    )
    service = Service(process, stderr)
    try:
        service.wait_until_listening(listen_seconds)
    except BaseException:
        service.__exit__(None, None, None)
        raise
    return service


def run_command(module: str, env: Mapping[str, str], *args: str) -> subprocess.CompletedProcess[str]:
    """Runs `python -m module args` with env and waits for its end."""
    return subprocess.run(
        [sys.executable, "-m", module, *args],
        env=environment(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        cwd=REPOSITORY,
        timeout=300,
        check=False,
    )


def environment(env: Mapping[str, str]) -> dict[str, str]:
    """What a process is given: env, and of the caller's own what Python needs."""
    names = ("PATH", "HOME", "TMPDIR", "LANG", "AUDIT_SEAL_SECONDS")
    inherited = {name: os.environ[name] for name in names if name in os.environ}
    return {**inherited, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'protos'}", **env}
