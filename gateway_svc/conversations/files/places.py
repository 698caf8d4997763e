"""Where the files of sessions are, and who holds them."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from gateway_svc.conversations.session import SESSION_ID
from gateway_svc.errors import Busy, InvalidRequest, NotFound
from recording.locks import lock_file

OWNER = "owner-"
SET_ASIDE = "set-aside"
SESSION, CONVERSATION = ".session", ".conversation"

_BEGINNING = 7
"""Characters of an id that name its folder."""
_TRIES = 5
_TRY_SECONDS = 0.002


def owner_of(path: Path) -> str:
    """The owner of a session, by its session file."""
    return path.parent.parent.name.removeprefix(OWNER)


class Places:
    """The folder `sessions` of a state directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.leases = root / "leases"

    def make(self) -> None:
        """Makes the folder if it is missing.

        Raises:
            OSError: it cannot be made.
        """
        for folder in (self.root, self.leases):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def new(self, owner: str, session_id: str) -> Path:
        """The session file of a new session, whose folder is made.

        Raises:
            OSError: it cannot be made.
        """
        path = self._path(owner, session_id)
        for folder in (path.parent.parent, path.parent):
            folder.mkdir(mode=0o700, exist_ok=True)
        return path

    def find(self, session_id: str, viewer: str | None = None) -> Path:
        """The session file of a session that viewer may know of; None: of any.

        Raises:
            InvalidRequest: the id is empty.
            NotFound: there is none.
        """
        if not session_id:
            raise InvalidRequest("session_id is empty: name the session", "session_id")
        if not SESSION_ID.fullmatch(session_id):
            raise NotFound("session_id is not the id of a session", "session", session_id)
        for owner in self._owners(viewer):
            if (path := self._path(owner, session_id)).exists():
                return path
        raise NotFound(f"session {session_id} is not known to this gateway", "session", session_id)

    def newest_first(self, before: str | None = None, viewer: str | None = None) -> Iterator[Path]:
        """The session files that viewer may see, by falling id, below the id `before`."""
        yield from self._in_order(viewer, before, newest_first=True)

    def oldest_first(self) -> Iterator[Path]:
        """All session files, by rising id."""
        yield from self._in_order(None, None, newest_first=False)

    def any_held(self) -> bool:
        """Whether sessions are held, or were when their holder died."""
        return bool(_names(self.leases))

    def forget_folder(self, path: Path) -> None:
        """Removes the folder of a session that is gone, if nothing else is in it."""
        with suppress(OSError):
            path.parent.rmdir()

    def _in_order(self, viewer: str | None, before: str | None, *, newest_first: bool) -> Iterator[Path]:
        folders: dict[str, list[Path]] = {}  # those of the owners: paths are made for what is looked at alone
        for owner in self._owners(viewer):
            folder = self.root / f"{OWNER}{owner}"
            for name in _names(folder):
                if before is None or name <= before[:_BEGINNING]:
                    folders.setdefault(name, []).append(folder)
        for beginning in sorted(folders, reverse=newest_first):
            found = [
                (name, folder)
                for folder in (owner / beginning for owner in folders[beginning])
                for name in _names(folder)
                if name.endswith(SESSION) and (before is None or name.removesuffix(SESSION) < before)
            ]
            for name, folder in sorted(found, reverse=newest_first):
                yield folder / name

    def _owners(self, viewer: str | None) -> list[str]:
        if viewer is not None:
            return [viewer, ""] if viewer else [""]
        return [name.removeprefix(OWNER) for name in _names(self.root) if name.startswith(OWNER)]

    def _path(self, owner: str, session_id: str) -> Path:
        return self.root / f"{OWNER}{owner}" / session_id[:_BEGINNING] / f"{session_id}{SESSION}"


class Hold:
    """The lease of a session: a file that is locked while somebody has it, and gone when nobody does."""

    def __init__(self, folder: Path, session_id: str) -> None:
        """Takes the lease.

        Raises:
            Busy: somebody has it.
            OSError: the file cannot be made.
        """
        self._path = folder / session_id
        for tried in range(_TRIES):  # who asks whether it is held locks it for a moment
            if (fd := lock_file(self._path)) is not None:
                self._fd = fd
                return
            time.sleep(_TRY_SECONDS * (tried < _TRIES - 1))
        raise Busy(f"session {session_id} is open in another gateway process")

    def release(self, *, in_order: bool) -> None:
        """Lets others have the session. in_order: else the next start of a gateway looks after it."""
        if in_order:
            with suppress(OSError):  # then it is looked after too, for nothing
                self._path.unlink()
        else:
            # Explicitly, since a child process that is just being started shares the file until its exec.
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        os.close(self._fd)


def is_held(folder: Path, session_id: str) -> bool:
    """Whether somebody has a session's lease."""
    try:
        fd = os.open(folder / session_id, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def abandoned(folder: Path) -> list[str]:
    """The sessions whose leases are there, and held by nobody."""
    return [name for name in sorted(_names(folder)) if not is_held(folder, name)]


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 - names are all that is wanted, of many
    except (FileNotFoundError, NotADirectoryError):
        return []
