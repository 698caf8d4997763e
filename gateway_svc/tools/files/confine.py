"""Paths that a model gave, opened without ever leaving the workspace.

A path is walked one component at a time, each opened relative to the folder before it. So every step starts inside,
whatever another process renames or links meanwhile. Links are followed by our own code: relative ones, and absolute
ones that lead back into the workspace. `..` goes back to the folder that the walk came through. Paths that lead out
are refused. openat2 with RESOLVE_BENEATH does the same except for absolute links, but some containers forbid it.
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
"""The greatest depth of a path: each folder on the way holds a descriptor."""
MAX_STEPS = 1_000
"""The most names on the way, those of links included: each takes a look at the disk."""
FOLDER_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_MESSAGES = {
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
class ResolvedPath:
    """A path after its walk: a name in an open folder."""

    folder: int
    """The folder's descriptor (O_PATH), open until the end of the context."""
    name: str
    """A name without a slash, which was not a link when it was checked; `.` for the folder itself."""


@contextmanager
def as_tool_errors() -> Iterator[None]:
    """Translates the operating system's errors into a ToolError, which does not quote the path.

    Raises:
        ToolError: instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "unknown")
        raise ToolError(_MESSAGES.get(error.errno or 0, f"the operating system refused it ({name})")) from None


@contextmanager
def resolve(root: int, workspace: Path, path: str, *, make_folders: bool = False) -> Iterator[ResolvedPath]:
    """Resolves `path`, relative to the workspace or absolute within it. The last name need not exist.

    `root` is the workspace's descriptor, `workspace` the prefix of absolute paths.

    Raises:
        ToolError: it leads outside.
        OSError: a folder on the way cannot be opened or, with make_folders, created.
    """
    folders = [root]
    try:
        yield ResolvedPath(name=_walk(workspace, path, folders, make_folders=make_folders), folder=folders[-1])
    finally:
        for folder in folders[1:]:
            os.close(folder)


def _walk(workspace: Path, path: str, folders: list[int], *, make_folders: bool) -> str:
    """Walks down, adds the open folders on the way to `folders`, and returns the last name."""
    todo = deque(_parts(workspace, path))
    links = steps = 0
    while todo:
        part = todo.popleft()
        if part in ("", "."):
            continue
        if (steps := steps + 1) > MAX_STEPS:
            raise ToolError(f"the path leads through more than {MAX_STEPS:,} names")
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
    # PurePosixPath treats two leading slashes specially; the operating system does not.
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
    return ToolError("the path leads outside the workspace", rule="workspace")


def open_regular(resolved: ResolvedPath) -> BinaryIO:
    """Opens a regular file for reading.

    Raises:
        ToolError: it is not a regular file.
        OSError: it cannot be opened.
    """
    # Without O_NONBLOCK, opening a FIFO would block before fstat can identify it.
    descriptor = os.open(resolved.name, READ_FLAGS, dir_fd=resolved.folder)
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
