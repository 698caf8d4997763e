"""Conversations in files: the protocol, each call in a thread."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from onrecord.common.v1 import common_pb2

from gateway_svc.conversations.encryption import Cipher, Keys
from gateway_svc.conversations.files import places, session_file, transcript
from gateway_svc.conversations.files.lease import FileLease
from gateway_svc.conversations.files.noted_keys import keys_in_use, note_keys, note_only, use_key
from gateway_svc.conversations.files.older import move_over
from gateway_svc.conversations.files.places import CONVERSATION, Hold, Places, owner_of
from gateway_svc.conversations.files.rewriting import DRAFT, rewrite
from gateway_svc.conversations.files.saving import Saves
from gateway_svc.conversations.memory import Memory
from gateway_svc.conversations.said import Place, Said, SaidPage
from gateway_svc.conversations.session import SessionPage, SessionState
from gateway_svc.conversations.undisturbed import in_thread
from gateway_svc.errors import Damaged, NotFound, storing
from recording.locks import sync_folder
from service_kit.paging import MAX_PAGE_BYTES

if TYPE_CHECKING:
    from gateway_svc.conversations.postgres.calls import Calls
    from gateway_svc.stopping.kept import SharedStops
    from gateway_svc.turns.budgets import Spent
    from gateway_svc.turns.named import Claims

log = structlog.get_logger(__name__)

_SUMS_BYTES = 256
"""What a session's message takes beside its settings."""
_REST = 2.0
"""How long no listing is read after one beside turns, by how long that took."""
_AT_ONCE = 100
"""Sessions that are looked at in a thread before others of its threads have a turn."""


class FileConversations:
    """See protocol.Conversations."""

    calls: "Calls | None" = None
    requests: "Claims | None" = None
    stops: "SharedStops | None" = None
    spending: "Spent | None" = None

    def __init__(
        self, state_dir: Path, *, synced: bool = True, memory_bytes: int = 2**28, keys: Keys | None = None
    ) -> None:
        """Moves over what earlier versions have left.

        synced: whether saving waits for the disk. keys: those that sessions are encrypted by.

        Raises:
            OSError: state_dir cannot be used.
            SettingsError: keys are not those of the sessions in it.
        """
        self._keys = keys or Keys()
        self._places = Places(state_dir / "sessions")
        self._places.make()
        self._memory = Memory(memory_bytes)
        self._saves, self._unsynced = Saves(synced=synced), Saves(synced=False)
        self._listing = asyncio.Lock()
        self._use: int | None = None
        """The descriptor that shows that the key that encrypts is in use."""
        note_keys(self._places.root, self._keys)
        move_over(self._places, self._keys, self._saves)

    async def create(self, state: SessionState, *, synced: bool) -> None:
        def create() -> None:
            with storing():
                path = self._places.new(state.owner, state.id)
                saves.write(path, state, 0, self._cipher(path), new=True)

        saves = self._saves if synced else self._unsynced
        await saves.run(create)

    async def open(self, session_id: str) -> FileLease:
        return await in_thread(partial(self._open, session_id), FileLease.give_up)

    def _open(self, session_id: str) -> FileLease:
        with storing():
            path = self._places.find(session_id)
            return FileLease.open(path, self._places.leases, self._cipher(path), self._memory, self._saves)

    async def state(self, session_id: str, viewer: str | None) -> SessionState:
        def read() -> SessionState:
            with storing():
                path = self._places.find(session_id, viewer)
                return self._as_it_is(session_file.read(path, self._cipher(path), prompt=True)[0])

        return await asyncio.to_thread(read)

    async def read_said(self, session_id: str, owner: str, after: Place, size: int) -> SaidPage:
        def read() -> SaidPage:
            with storing():
                path = self._places.find(session_id, owner)
                cipher = self._cipher(path)
                with suppress(Damaged):  # where it cannot be known, records in clear are the session's too
                    session_file.read(path, cipher, prompt=False)
                try:
                    fd = os.open(path.with_suffix(CONVERSATION), os.O_RDONLY | os.O_CLOEXEC)
                except FileNotFoundError:  # nothing was said yet
                    return SaidPage([], None)
                try:
                    return _said_page(transcript.said_after(fd, cipher, after), size)
                finally:
                    os.close(fd)

        return await asyncio.to_thread(read)

    async def list_page(self, size: int, before: str | None, viewer: str | None) -> SessionPage:
        """One listing reads its files at a time, and beside turns a third of the time: however many are asked for,
        turns find a thread and the interpreter.
        """
        took = 0.0

        def read() -> SessionPage:
            nonlocal took
            began = time.monotonic()
            with storing():
                found = _page(self._readable(self._places.newest_first(before, viewer)), size)
            if self._places.any_held():
                took = time.monotonic() - began
            return found

        await self._listing.acquire()
        try:
            return await in_thread(read)
        finally:
            asyncio.get_running_loop().call_later(_REST * took, self._listing.release)

    async def remove(self, session_id: str) -> None:
        def remove() -> None:
            with storing():
                path = self._places.find(session_id)
                hold = Hold(self._places.leases, session_id)
                try:
                    self._memory.take(session_id)
                    # What was said first: as long as the session is there, it can be removed again.
                    path.with_suffix(CONVERSATION).unlink(missing_ok=True)
                    path.with_suffix(DRAFT).unlink(missing_ok=True)
                    path.unlink(missing_ok=True)
                    with suppress(FileNotFoundError):
                        sync_folder(path.parent)
                finally:
                    hold.release(in_order=True)
                self._places.forget_folder(path)

        await in_thread(remove)

    async def abandoned(self) -> list[str]:
        return await asyncio.to_thread(places.abandoned, self._places.leases)

    async def unused_since(self, updated_ms: int) -> AsyncIterator[str]:
        times = map(self._times, self._places.oldest_first())
        while batch := await asyncio.to_thread(lambda: list(islice(times, _AT_ONCE))):
            for session_id, created, updated in batch:
                if created >= updated_ms:
                    return
                if updated < updated_ms:
                    yield session_id

    def start(self) -> None:
        """Shows others which key it encrypts by; else nothing is done beside calls."""
        if self._use is None:
            self._use = use_key(self._places.root, self._keys)

    async def rewrite(self, session_id: str) -> None:
        def work() -> None:
            with storing():
                path = self._places.find(session_id)
                hold, in_order = Hold(self._places.leases, session_id), False
                try:
                    cipher = self._cipher(path)
                    state, records = session_file.read(path, cipher, prompt=True)
                    in_order = state.status != common_pb2.SESSION_STATUS_RUNNING
                    rewrite(path, state, records, cipher)
                finally:
                    hold.release(in_order=in_order)

        await in_thread(work)

    async def keys_in_use(self) -> list[str]:
        def look() -> list[str]:
            with storing():
                return keys_in_use(self._places.root, self._keys)

        return await asyncio.to_thread(look)

    async def all_rewritten(self) -> list[str]:
        def note() -> list[str]:
            with storing():
                return note_only(self._places.root, self._keys)

        return await asyncio.to_thread(note)

    async def trouble(self) -> str:
        return ""  # the gateway looks itself whether its state directory can be written

    def hurry(self) -> None:
        """A write to a disk ends when it does."""

    async def aclose(self) -> None:
        if self._use is not None:
            os.close(self._use)
            self._use = None

    def _readable(self, paths: Iterator[Path]) -> Iterator[SessionState]:
        for path in paths:
            try:
                yield self._as_it_is(session_file.read(path, self._cipher(path), prompt=False)[0])
            except NotFound:  # removed meanwhile
                continue
            except (Damaged, OSError) as error:
                log.warning("session.unreadable", session_id=path.stem, reason=str(error), hint="sessions check")

    def _as_it_is(self, state: SessionState) -> SessionState:
        running = state.status == common_pb2.SESSION_STATUS_RUNNING
        if running and not places.is_held(self._places.leases, state.id):
            state.status = common_pb2.SESSION_STATUS_FAILED  # the process that ran it is gone
        return state

    def _times(self, path: Path) -> tuple[str, int, int]:
        """A session's id, and when it was made and last saved, in milliseconds; the file tells of one that is damaged,
        or encrypted by a key that is not there.
        """
        try:
            state, _ = session_file.read(path, self._cipher(path), prompt=False)
        except (NotFound, Damaged, OSError):
            try:
                return path.stem, 0, path.stat().st_mtime_ns // 1_000_000
            except OSError:  # removed meanwhile
                return path.stem, 0, sys.maxsize
        return state.id, state.created_at_ms, state.updated_at_ms

    def _cipher(self, path: Path) -> Cipher:
        return self._keys.cipher(path.stem, owner_of(path))


def _page(states: Iterator[SessionState], size: int) -> SessionPage:
    page, page_bytes = list[SessionState](), 0
    for state in states:
        if len(page) == size or page_bytes > MAX_PAGE_BYTES:
            return SessionPage(page, has_more=True)
        page.append(state)
        page_bytes += state.settings.ByteSize() + _SUMS_BYTES
    return SessionPage(page, has_more=False)


def _said_page(found: Iterator[tuple[Said, int, Place]], size: int) -> SaidPage:
    page, page_bytes, behind = list[Said](), 0, None
    for said, said_bytes, place in found:
        if len(page) == size or (page and page_bytes + said_bytes > MAX_PAGE_BYTES):
            return SaidPage(page, behind)
        page.append(said)
        page_bytes += said_bytes
        behind = place
    return SaidPage(page, None)
