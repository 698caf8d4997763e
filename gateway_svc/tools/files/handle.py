"""What tools can do with files: open, list, stat and replace, all within the workspace."""

import os
import stat
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from gateway_svc.threads import Threads
from gateway_svc.tools import ToolError
from gateway_svc.tools.files.confine import READ_FLAGS, ResolvedPath, as_tool_errors, open_regular, resolve
from gateway_svc.tools.files.replace import replace_file

_CHANGE_SECONDS = 10.0
"""How long a change waits for the one before it, which takes milliseconds unless its file system hangs."""


@dataclass(frozen=True, slots=True)
class OpenedPath:
    """A file or a folder, opened for a program that receives its descriptor."""

    descriptor: int
    is_folder: bool


class Files:
    """The workspace, held by a descriptor from the start: later changes of its path have no effect.

    Paths are relative to the workspace, or absolute within it. Each operation raises ToolError, which quotes no path,
    if a path leads outside or the operating system refuses it. All of them block, and some file systems let them hang:
    call them in `looking` or `changing`.
    """

    def __init__(self, workspace: Path) -> None:
        """Opens the workspace, an absolute and resolved path.

        Raises:
            OSError: it is not a folder, or cannot be opened.
        """
        self.path = workspace
        """The workspace's path when it was opened: for absolute paths and messages."""
        self._root = os.open(workspace, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self.looking = Threads("looks at files", refusal=ToolError)
        self.changing = Threads("changes of files", at_once=8, refusal=ToolError)
        """Apart from looking: they wait for one another."""
        self._one_change = threading.Lock()

    def open(self, path: str) -> AbstractContextManager[BinaryIO]:
        """A regular file, open for reading."""
        return self._open(path)

    def list(self, path: str = ".") -> list[str]:
        """The names in a folder, sorted."""
        with self.open_path(path) as opened:
            if not opened.is_folder:
                raise ToolError("the path is not a folder")
            return sorted(os.listdir(opened.descriptor))  # noqa: PTH208 - pathlib reads no descriptor

    def stat(self, path: str) -> os.stat_result:
        """The status of a file or a folder. Links are followed within the workspace."""
        with self._resolve(path) as resolved:
            return os.stat(resolved.name, dir_fd=resolved.folder, follow_symlinks=False)

    def replace(self, path: str, content: bytes) -> bool:
        """Creates a file, with missing folders, or replaces it atomically; returns whether it existed."""
        with self._alone(), self._resolve(path, make_folders=True) as resolved:
            return replace_file(resolved, content)

    def change(self, path: str, change: Callable[[BinaryIO], bytes]) -> None:
        """Replaces a file by the result of `change`. Concurrent calls lose no changes."""
        with self._alone(), self._resolve(path) as resolved:
            with open_regular(resolved) as file:
                state = os.fstat(file.fileno())
                content = change(file)
            replace_file(resolved, content, unchanged_since=state)

    @contextmanager
    def open_path(self, path: str) -> Iterator[OpenedPath]:
        """Opens a regular file or a folder for a program that reads it by its descriptor."""
        with self._resolve(path) as resolved:
            descriptor = os.open(resolved.name, READ_FLAGS, dir_fd=resolved.folder)
        try:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
                raise ToolError("the path is neither a folder nor a regular file")
            yield OpenedPath(descriptor, stat.S_ISDIR(mode))
        finally:
            os.close(descriptor)

    @asynccontextmanager
    async def opening(self, path: str) -> AsyncIterator[OpenedPath]:
        """The same for coroutines."""
        opening = self.open_path(path)
        opened = await self.looking.run(opening.__enter__, lambda _: opening.__exit__(None, None, None))
        try:
            yield opened
        finally:
            opening.__exit__(None, None, None)

    @property
    def root(self) -> int:
        """The workspace's descriptor (O_PATH), for programs in a sandbox, which confines their use of it."""
        if os.fstat(self._root).st_nlink == 0:
            raise ToolError("the workspace was removed; the gateway must be started again")
        return self._root

    def path_of(self, opened: OpenedPath) -> Path:
        """The path of an opened file or folder, below the workspace's path when it was opened."""
        root, resolved = (
            Path(f"/proc/self/fd/{descriptor}").readlink() for descriptor in (self._root, opened.descriptor)
        )
        return self.path / resolved.relative_to(root)

    def close(self) -> None:
        """Closes the workspace."""
        os.close(self._root)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._one_change.acquire(timeout=_CHANGE_SECONDS):
            raise ToolError("another change of a file has not ended: try again later")
        try:
            yield
        finally:
            self._one_change.release()

    @contextmanager
    def _resolve(self, path: str, *, make_folders: bool = False) -> Iterator[ResolvedPath]:
        with as_tool_errors(), resolve(self.root, self.path, path, make_folders=make_folders) as resolved:
            yield resolved

    @contextmanager
    def _open(self, path: str) -> Iterator[BinaryIO]:
        with self._resolve(path) as resolved, open_regular(resolved) as file:
            yield file

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
