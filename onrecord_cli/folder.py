"""The folder that holds a person's record, and what runs on it now."""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from service_kit.printable import printable

VARIABLE = "ONRECORD_STATE_DIR"
_LOCK, _RUNNING, _ENDED = "up.lock", "running.json", "ended.json"
DOOR_PORT, DOOR_HTTP_PORT = 4317, 4318
"""Those of OpenTelemetry, which agents' configurations name; the door has others where they are taken."""
_LOCK_SECONDS = 1.0
"""How long one waits for readers, who hold the lock for a moment when they look."""


class AlreadyRuns(Exception):
    """Another process runs the services on this folder."""


class Running(NamedTuple):
    """What runs on a folder: addresses as host:port, empty for what does not run."""

    pid: int
    ledger: str
    gateway: str = ""
    door: str = ""
    door_http: str = ""
    command: str = "onrecord up"
    """What has started it."""

    def ended(self, how: str) -> str:
        """A sentence on the end of what has started it."""
        return f"`{self.command}`, which had started it, {how}"


def state_folder() -> Path:
    """ONRECORD_STATE_DIR, or a folder where programs keep a user's data.

    https://specifications.freedesktop.org/basedir-spec/latest/
    """
    if given := os.environ.get(VARIABLE):
        return Path(given).expanduser().absolute()
    data = os.environ.get("XDG_DATA_HOME", "")
    return (Path(data) if os.path.isabs(data) else Path.home() / ".local" / "share") / "onrecord"  # noqa: PTH117


def ledger_file(folder: Path) -> Path:
    """The ledger's database."""
    return folder / "audit" / "audit.db"


def short(path: Path) -> str:
    """The path for people."""
    home = Path.home()
    return printable(f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path))


def is_held(folder: Path) -> bool:
    """Whether a process runs the services on folder, starts them or ends them."""
    try:
        lock = os.open(folder / _LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def find(folder: Path) -> Running | None:
    """What runs on folder. The file that tells the addresses counts only while who wrote it holds the lock: the kernel
    takes it from a process that was killed.
    """
    if is_held(folder):
        with suppress(OSError, ValueError, TypeError):
            return Running(**json.loads((folder / _RUNNING).read_bytes()))
    return None


class Following:
    """Follows the services on a folder, which may listen elsewhere each time that they are started."""

    def __init__(self, folder: Path, running: Running) -> None:
        """running: what ran there at first."""
        self._folder = folder
        told = {name: address for name, address in running._asdict().items() if name not in ("pid", "command")}
        self._names = {address: name for name, address in told.items() if address}

    def __call__(self, target: str) -> str:
        """Where what was at target at first is now; target itself where that is not known."""
        name, now = self._names.get(target), find(self._folder)
        address: str = getattr(now, name) if name and now else ""
        return address or target


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Holds the folder's lock, with nothing told of what runs.

    Raises:
        AlreadyRuns: another process holds it.
        OSError: the folder cannot be used.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(folder / _LOCK, os.O_RDONLY | os.O_CREAT, 0o600)
    try:
        until = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise AlreadyRuns from None
                time.sleep(0.02)
        for left in (_RUNNING, _ENDED):
            (folder / left).unlink(missing_ok=True)
        try:
            yield
        finally:
            (folder / _RUNNING).unlink(missing_ok=True)
    finally:
        os.close(lock)


def tell_end(folder: Path, why: str) -> None:
    """Writes why what this process runs ends, for why_ended(). Call it inside held()."""
    with suppress(OSError):  # a disk that is full must not keep it from ending them
        (folder / _ENDED).write_bytes(json.dumps({"pid": os.getpid(), "why": why}).encode())


def why_ended(folder: Path, running: Running) -> str:
    """Why what ran on folder has ended, or ends; empty if it does not."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        ended = json.loads((folder / _ENDED).read_bytes())
        if ended["pid"] == running.pid:
            return str(ended["why"])
    now = find(folder)
    return "" if now and now.pid == running.pid else running.ended("has ended, or was killed")


def tell(folder: Path, running: Running) -> None:
    """Writes what runs, for find(). Call it inside held()."""
    part = folder / f"{_RUNNING}.part"
    part.write_bytes(json.dumps(running._asdict()).encode())
    part.replace(folder / _RUNNING)
