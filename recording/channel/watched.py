"""Files that are read again when they change, so that certificates and tokens are replaced without a restart."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import structlog

log = structlog.get_logger(__name__)

T = TypeVar("T")

_Stamp = tuple[tuple[int, int, int, int] | None, ...]


class WrongFile(Exception):
    """A file cannot be used. The message says which one, why, and what to do."""


class Watched(Generic[T]):
    """What load() makes of the contents of some files. Any thread may ask."""

    def __init__(self, paths: Sequence[Path], load: Callable[[Sequence[bytes]], T]) -> None:
        """Reads the files a first time. load() gets their contents in the order of paths.

        Raises:
            WrongFile: one of them cannot be read, or load() says so.
        """
        self._paths = paths
        self._load = load
        self._stamp = self._look()
        self._value = load([_read(path) for path in paths])

    def current(self) -> T:
        """The value of the files as they are now; the last good one when what they hold now is of no use.

        Looking costs microseconds: sizes and times are compared. What is of no use is told in the log, once.
        """
        stamp = self._look()
        if stamp != self._stamp:
            self._stamp = stamp
            paths = [str(path) for path in self._paths]
            try:
                self._value = self._load([_read(path) for path in self._paths])
            except WrongFile as error:
                log.error("files.kept_as_before", paths=paths, reason=str(error))
            else:
                log.info("files.reloaded", paths=paths)
        return self._value

    def _look(self) -> _Stamp:
        return tuple(_stamp(path) for path in self._paths)


def _stamp(path: Path) -> tuple[int, int, int, int] | None:
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise WrongFile(f"{path}: cannot be read ({error.strerror}): check the path and this user's rights") from None
