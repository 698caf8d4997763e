"""Files that are reloaded when they change, so that certificates and tokens can be replaced without a restart."""

import os
import stat
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from recording.log import get_logger

log = get_logger(__name__)

SETTLE_SECONDS = 0.5
"""How long a file must stay the same that may be half written."""

T = TypeVar("T")

_Stamp = tuple[tuple[int, int, int, int] | None, ...]


class WrongFile(Exception):
    """A file cannot be used. The message says which, why, and what to do."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path


class Watched(Generic[T]):
    """The value that load() makes of the contents of some files. Thread-safe."""

    def __init__(self, paths: Sequence[Path], load: Callable[[Sequence[bytes]], T], *, lines: bool = False) -> None:
        """Reads the files. load() gets their contents in the order of paths.

        lines: that the files end in a line break. One that does not may be half written: it is taken when it is still
        the same SETTLE_SECONDS later.

        Raises:
            WrongFile: a file cannot be read, or load() raised it.
        """
        self._paths = paths
        self._names = [str(path) for path in paths]
        self._load = load
        self._lines = lines
        self._cut: list[bytes] = []
        self._cut_since = 0.0
        self._stamp = self._look()
        contents = self._read()
        while self._may_be_cut(contents):
            time.sleep(SETTLE_SECONDS)
            contents = self._read()
        self._value = load(contents)
        self.trouble = ""
        """Why the files as they were last seen cannot be used, so that an earlier value stands; empty when they can."""

    def current(self) -> T:
        """The value of the current files, or the last good one if they cannot be used, which is logged once.

        Costs microseconds while nothing changes: sizes and times are compared.
        """
        stamp = self._look()
        if stamp != self._stamp:
            try:
                contents = self._read()
                if self._may_be_cut(contents):
                    return self._value
                self._stamp = stamp
                self._value = self._load(contents)
            except WrongFile as error:
                self._stamp, self.trouble = stamp, str(error)
                log.error("files.kept_as_before", paths=self._names, reason=str(error))
            else:
                self.trouble = ""
                log.info("files.reloaded", paths=self._names)
        return self._value

    def _read(self) -> list[bytes]:
        return [read_file(path) for path in self._paths]

    def _may_be_cut(self, contents: list[bytes]) -> bool:
        """Whether a file does not end in a line break, and was not seen so for SETTLE_SECONDS."""
        if not self._lines or all(content.endswith(b"\n") or not content for content in contents):
            return False
        if contents != self._cut:
            self._cut, self._cut_since = contents, time.monotonic()
        return time.monotonic() - self._cut_since < SETTLE_SECONDS

    def _look(self) -> _Stamp:
        return tuple([_stamp(name) for name in self._names])


def _stamp(name: str) -> tuple[int, int, int, int] | None:
    try:
        seen = os.stat(name)  # noqa: PTH116 - at every call, and a Path takes longer
    except OSError:
        return None
    return seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns


def read_file(path: Path) -> bytes:
    """The contents of a file that decides who is trusted.

    Raises:
        WrongFile: it cannot be read, is no regular file, or every user of the machine may write it.
    """
    try:
        # without waiting for the other end of a pipe
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read() if stat.S_ISREG(mode) else b""
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "no path"
        raise WrongFile(path, f"cannot be read ({why}): check the path and this user's rights") from None
    if not stat.S_ISREG(mode):
        raise WrongFile(path, "is not a regular file")
    if mode & stat.S_IWOTH:
        raise WrongFile(path, "can be written by every user of this machine: chmod o-w")
    return content


def warn_of_readers(*paths: Path | None) -> None:
    """Warns of secret files that every user of the machine can read. Container platforms mount theirs so."""
    for path in filter(None, paths):
        if path.stat().st_mode & stat.S_IROTH:
            log.warning("files.readable_by_all", path=str(path), hint="chmod o-r")
