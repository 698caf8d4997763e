"""Replaces a file atomically: a reader sees the old content or the new, and nothing is written through a link."""

import os
import secrets
import stat
from contextlib import suppress

from gateway_svc.tools import ToolError
from gateway_svc.tools.files.confine import ResolvedPath


def replace_file(resolved: ResolvedPath, content: bytes, *, unchanged_since: os.stat_result | None = None) -> bool:
    """Creates or replaces the file; returns whether it existed. Its permissions stay.

    Raises:
        ToolError: it is not a writable regular file, or it changed after `unchanged_since`.
        OSError: the file cannot be written.
    """
    before = _stat(resolved)
    if before is not None and not stat.S_ISREG(before.st_mode):
        raise ToolError("the path is not a regular file")
    if before is not None and not before.st_mode & stat.S_IWUSR:
        raise ToolError("the file is read-only")
    draft = f".{secrets.token_hex(8)}.onrecord"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    # While it is written nobody reads in the draft what the file keeps from them.
    descriptor = os.open(draft, flags, 0o666 if before is None else 0o600, dir_fd=resolved.folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            if before is not None:
                os.fchmod(descriptor, before.st_mode & 0o777)
        if unchanged_since is not None and _version(_stat(resolved)) != _version(unchanged_since):
            raise ToolError("the file changed meanwhile; read it again")
        os.rename(draft, resolved.name, src_dir_fd=resolved.folder, dst_dir_fd=resolved.folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(draft, dir_fd=resolved.folder)
        raise
    return before is not None


def _stat(resolved: ResolvedPath) -> os.stat_result | None:
    try:
        return os.stat(resolved.name, dir_fd=resolved.folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _version(state: os.stat_result | None) -> tuple[int, ...]:
    return () if state is None else (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)
