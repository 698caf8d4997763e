"""What `onrecord-hook` does when no door took an event: it keeps a redacted line of it, and the next run hands it over.

The folder is for this user alone. `kept` grows by lines to MAX_BYTES; what came then is a byte of `lost` each. Who
hands over has the lock, and moves `kept` to `sending` first, so that others go on meanwhile. What the door has taken of
`sending` becomes empty lines.
"""

import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from intake_svc.hooks.answers import NOT_RECORDED, refusal
from intake_svc.hooks.client import NotTaken, Options, folder, post
from intake_svc.hooks.event import HookEvent, WrongEvent, read_event
from intake_svc.hooks.tables import Kind
from intake_svc.lenient_json import load_json

MAX_BYTES = 4 * 2**20
MAX_LOST = 2**20
PIECE_BYTES = 128 * 1024
"""Of what is handed over at once: a door takes it well within the time that it has for an answer."""
HAND_OVER_SECONDS = 0.5
"""After which no further piece is handed over: a tool waits for the hook."""


def fall_back(options: Options, event: bytes, why: str, place: tuple[str, str], at_ms: int, event_id: str) -> bytes:
    """Keeps an event that no door took; returns what to answer the agent.

    In `strict` a call is refused that is about to run. An event that cannot be read may be one.

    Args:
        options: the command line.
        event: what the agent gave.
        why: the door did not take it.
        place: the repository and the branch.
        at_ms: when the hook was called.
        event_id: what the door was told that the event is known by.

    Raises:
        OSError: the event can be neither kept nor counted.
    """
    is_strict = options.mode == "strict"
    try:
        read = read_event(options.agent, load_json(event), at_ms, options.event, place, event_id)
    except (WrongEvent, ValueError, RecursionError):
        read = None
    if is_strict and (read is None or read.kind is Kind.BEFORE):
        return json.dumps(refusal(options.agent, f"{NOT_RECORDED} ({why})")).encode()
    if read is not None and read.kind is not Kind.NOTHING:
        keep(read)
    return b""


def keep(event: HookEvent) -> None:
    """Appends a redacted line, or counts what there is no room for.

    Raises:
        OSError: neither can be written.
    """
    line = event.to_line().encode()
    with _locked(wait=True) as home:
        if home is None:
            return
        if _size(f"{home}/kept") + _size(f"{home}/sending") + len(line) <= MAX_BYTES:
            with suppress(OSError):  # a full disk may have room for a byte
                _append(f"{home}/kept", line)
                return
        if _size(f"{home}/lost") < MAX_LOST:
            _append(f"{home}/lost", b".")


def hand_over(options: Options) -> None:
    """Gives the door what was kept, in pieces, for HAND_OVER_SECONDS. Where that fails, the rest stays."""
    until = time.monotonic() + HAND_OVER_SECONDS
    with suppress(OSError, NotTaken), _locked(wait=False) as home:
        while home is not None and _hand_over_piece(options, home) and time.monotonic() < until:
            pass


def _hand_over_piece(options: Options, home: str) -> bool:
    """Gives the door a piece; whether there is more."""
    sending, lost = f"{home}/sending", _size(f"{home}/lost")
    if not _size(sending):
        with suppress(FileNotFoundError):
            os.rename(f"{home}/kept", sending)
    if _size(sending):
        with open(sending, "r+b", buffering=0) as file:
            kept = file.readall()
            lines = kept.lstrip(b"\n")
            end = lines.find(b"\n", PIECE_BYTES) + 1
            if 0 < end < len(lines):
                post(options, "/hooks/kept?lost=0", lines[:end])
                os.pwrite(file.fileno(), b"\n" * end, len(kept) - len(lines))  # a full disk has no room for a new file
                return True
    else:
        lines = b""
    if lines or lost:
        post(options, f"/hooks/kept?lost={lost}", lines)
    for path in (sending, f"{home}/lost"):
        with suppress(FileNotFoundError):
            os.unlink(path)
    return False


@contextmanager
def _locked(*, wait: bool) -> Iterator[str | None]:
    """The folder, while nobody else changes what is in it; None where somebody does and wait is not set."""
    home = folder()
    if not os.path.isdir(home):
        os.makedirs(home, mode=0o700, exist_ok=True)
    fd = os.open(f"{home}/kept.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield None
            return
        yield home
    finally:
        os.close(fd)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _append(path: str, data: bytes) -> None:
    """Appends all of data, or nothing."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        end = os.fstat(fd).st_size
        if os.write(fd, data) < len(data):
            os.ftruncate(fd, end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(fd)
