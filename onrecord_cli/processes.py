"""A service in a process of its own, which ends when who started it does."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from shutil import disk_usage
from typing import Any

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
LISTEN_SECONDS = 90.0
END_SECONDS = 30.0
"""More than a service's drain time and what it may take beyond."""
_SHOWN_LINES = 6


class ServiceEnded(Exception):
    """A service has ended, or does not begin to listen; the message has the last lines of its log."""


class Service:
    """`python -m module …`, whose log goes to a file."""

    def __init__(self, name: str, words: list[str], environ: Mapping[str, str], log: Path) -> None:
        """Starts it. The log of before is kept beside with the ending .1."""
        self.name, self.log = name, log
        if log.exists():
            log.replace(log.with_name(f"{log.name}.1"))
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", *words],  # -P: no module of the folder at hand is taken for ours
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,  # a terminal's ^C is for who started it, who ends them in their order
                preexec_fn=_ends_with(os.getpid()),
            )

    def events(self) -> Iterator[dict[str, Any]]:
        """What its log tells so far."""
        for line in self.log.read_bytes().splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                yield event

    def address(self, event: str = "service.listening") -> str:
        """host:port, once it listens."""
        return next((str(each["address"]) for each in self.events() if each.get("event") == event), "")

    def wait_until_listening(self) -> str:
        """The address that it listens at. Raises ServiceEnded."""
        until = time.monotonic() + LISTEN_SECONDS
        while time.monotonic() < until:
            ended = self.process.poll() is not None
            if address := self.address():
                return address
            if ended:
                break
            time.sleep(0.02)
        raise ServiceEnded(self.why())

    def how(self) -> str:
        """How it has ended, in a few words that begin with its name."""
        code = self.process.poll()
        if code is None:
            return f"the {self.name} does not begin to listen"
        if code == -signal.SIGKILL:
            return f"the {self.name} was killed (SIGKILL), by somebody or by the kernel for want of memory"
        if code < 0:
            return f"the {self.name} was ended by {signal.Signals(-code).name} ({signal.strsignal(-code)})"
        return f"the {self.name} ended with exit code {code}"

    def why(self) -> str:
        """How it has ended, and the last of its log that matters; of a wrong setting, its sentence alone."""
        from service_kit.settings import EXIT_WRONG_SETTINGS  # takes long to load, and most services begin

        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        plain = [line for line in lines if line and not line.startswith("{")]
        code = self.process.poll()
        is_told = code == -signal.SIGKILL or (code == EXIT_WRONG_SETTINGS and bool(plain))
        said = plain if is_told else list(filter(None, map(_sentence, lines)))
        if not lines and not disk_usage(self.log.parent).free:
            return f"{self.how()}: the disk of {self.log.parent} is full"
        told = [f"{self.how()}; its log is {self.log}", *(f"  {line}" for line in said[-_SHOWN_LINES:])]
        return "\n".join(told)

    def end(self) -> None:
        """Begins its end."""
        if self.process.poll() is None:
            self.process.terminate()

    def wait(self) -> None:
        """Waits for its end, and kills it when that takes too long."""
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _ends_with(parent: int) -> Callable[[], None]:
    """What a new process does so that it gets SIGTERM when its parent dies, however that happens."""
    libc = ctypes.CDLL(None)

    def tie() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return tie


def _sentence(line: str) -> str:
    """A line of a log for people; empty where it tells of nothing that somebody should look at."""
    try:
        event = json.loads(line)
        name, fields = event.pop("event"), event
    except (ValueError, KeyError, TypeError, AttributeError):
        return line
    if event.get("level") in ("debug", "info"):
        return ""
    hidden = ("timestamp", "level", "traceback")
    return " ".join([str(name), *(f"{key}={value}" for key, value in fields.items() if key not in hidden)])
