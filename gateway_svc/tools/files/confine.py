"""Paths that a model gave, opened without ever leaving the workspace.

A path is walked one component at a time, each opened relative to the folder before it, so that whatever another process
renames or links in the meantime, every step starts inside. Links are followed by hand: relative ones, and absolute ones
that lead back into the workspace. `..` goes back to the folder that the walk came through. What leads out is refused.
This is what openat2 with RESOLVE_BENEATH does, except for absolute links, and no container's filter forbids it.
"""

import errno
import os
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from gateway_svc.tools import ToolError

MAX_LINKS = 40
MAX_FOLDERS = 200
"""How deep a path may lead: each folder on its way holds a descriptor."""
FOLDER_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_TOLD = {
    errno.ENOENT: "there is no such file or folder",
    errno.ENOTDIR: "a part of the path is not a folder",
    errno.EISDIR: "the path is a folder",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ELOOP: "the path has too many links, or changed while it was opened",
    errno.ENAMETOOLONG: "the path, or a name in it, is too long",
    errno.ENOSPC: "no space is left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be too large",
    errno.EROFS: "the file system is read-only",
    errno.ENXIO: "the path is not a regular file",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a path leads: a name in an open folder."""

    folder: int
    """The folder's descriptor (O_PATH), open as long as the context that gave it."""
    name: str
    """A name without a slash that was no link when it was looked at; `.` for the folder itself."""


@contextmanager
def told_errors() -> Iterator[None]:
    """Turns the operating system's errors into a ToolError, which does not quote the path.

    Raises:
        ToolError: instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "unknown")
        raise ToolError(_TOLD.get(error.errno or 0, f"the operating system refused it ({name})")) from None


@contextmanager
def located(root: int, workspace: Path, path: str, *, make_folders: bool = False) -> Iterator[Place]:
    """The place that `path` names, relative to the workspace or absolute within it. The last name need not exist.

    `root` is the workspace's descriptor, `workspace` the path that absolute paths begin with.

    Raises:
        ToolError: it leads outside.
        OSError: a folder on the way cannot be opened, or made where make_folders is set.
    """
    folders = [root]
    try:
        yield Place(name=_walk(workspace, path, folders, make_folders=make_folders), folder=folders[-1])
    finally:
        for folder in folders[1:]:
            os.close(folder)


def _walk(workspace: Path, path: str, folders: list[int], *, make_folders: bool) -> str:
    """Walks down, leaving the open folders that lead to the last name in `folders`; returns that name."""
    todo = deque(_parts(workspace, path))
    links = 0
    while todo:
        part = todo.popleft()
        if part in ("", "."):
            continue
        if part == "..":
            if len(folders) == 1:
                raise _outside()
            os.close(folders.pop())
            continue
        target = _link_target(part, folders[-1])
        if target is not None:
            links += 1
            if links > MAX_LINKS:
                raise OSError(errno.ELOOP, "too many links")
            if target.startswith("/"):
                while len(folders) > 1:
                    os.close(folders.pop())
            todo.extendleft(reversed(_parts(workspace, target)))
        elif not todo:
            return part
        else:
            if make_folders:
                with suppress(FileExistsError):
                    os.mkdir(part, dir_fd=folders[-1])
            if len(folders) > MAX_FOLDERS:
                raise ToolError(f"the path leads deeper than {MAX_FOLDERS} folders")
            folders.append(os.open(part, FOLDER_FLAGS, dir_fd=folders[-1]))
    return "."


def _parts(workspace: Path, path: str) -> list[str]:
    if not path.startswith("/"):
        return path.split("/")
    root, parts = workspace.parts, PurePosixPath(path).parts
    # PurePosixPath keeps two leading slashes apart from one; the operating system does not.
    if parts[1 : len(root)] != root[1:]:
        raise _outside()
    return [*parts[len(root) :], ""] if path.endswith("/") else list(parts[len(root) :])


def _link_target(name: str, folder: int) -> str | None:
    try:
        return os.readlink(name, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None
        raise


def _outside() -> ToolError:
    return ToolError("the path leads outside the workspace")


def open_regular(place: Place) -> BinaryIO:
    """Opens the regular file at place for reading.

    Raises:
        ToolError: there is something else.
        OSError: it cannot be opened.
    """
    # Without O_NONBLOCK a FIFO would hang here before fstat could tell what it is.
    descriptor = os.open(place.name, READ_FLAGS, dir_fd=place.folder)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise OSError(errno.EISDIR, "is a folder")
        if not stat.S_ISREG(mode):
            raise ToolError("the path is not a regular file")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise
