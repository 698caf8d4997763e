"""Watches the ledger for a producer: on connecting, and each minute, whether its log still begins with what it showed
before, and whether rows that it acknowledged are in it.

What is seen is on disk before anything is built on it. What is doubted is told once, whoever accepts it, and when: by
an error in the log, a control row, a metric and health. One process of a state directory watches.
"""

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from onrecord.audit.v1 import audit_pb2, proof_pb2

from recording.channel.details import info_of
from recording.delivery.connection import Connection, Target, describe
from recording.locks import lock_file
from recording.log import get_logger
from recording.rows.control import control_row
from recording.spool import Counters
from recording.transparency.checkpoint import Checkpoint
from recording.transparency.cosignature import Cosigner
from recording.transparency.errors import BadKey
from recording.transparency.note import Verifier, split_note
from recording.upkeep import attempt
from recording.witness.acked_rows import AckedRows
from recording.witness.checks import Contradiction, check_growth, new_restores, next_key, read_head, seen
from recording.witness.cosigning import open_cosigner
from recording.witness.doubts import FOLDER, Doubts
from recording.witness.proofs import add_cosignature, get_checkpoint
from recording.witness.returning import send_again
from recording.witness.view import Told, View, ViewFile

log = get_logger(__name__)

SECONDS = 60.0

_LEAST_SECONDS = 5.0
_UNNAMED_SECONDS = 3600.0
"""How long a ledger that does not name this witness is not asked again to take its signatures."""
_NO_SEAL = {"UNSUPPORTED", "NOT_SEALED"}
_HINT = (
    "compare the ledger with a copy that you trust (`audit-svc verify`). If it was restored from a backup, say so: "
    "`audit-svc seal accept-restore --reason …`"
)


@dataclass(frozen=True, slots=True)
class WitnessOptions:
    """How a producer watches its ledger."""

    seconds: float = SECONDS
    """Between two looks; 0: never."""
    log_key: str = ""
    """The verifier key of the ledger's log; empty: the first that it shows is trusted, and kept."""
    ack_seconds: float = 30.0
    counters: Counters = field(default_factory=Counters)


class Witness:
    """Looks, again and again, as one task of the event loop."""

    def __init__(
        self,
        state_dir: Path,
        target: Target,
        tell: Callable[[audit_pb2.ControlRow], object],
        options: WitnessOptions,
    ) -> None:
        """Opens nothing. tell: puts a row on the record."""
        self._folder = state_dir / FOLDER
        self._root = state_dir / "spool"
        self._doubts = Doubts(state_dir)
        self._target = target
        self._tell = tell
        self._options = options
        self._counters = options.counters
        self._wake = asyncio.Event()
        self._hurried = asyncio.Event()
        self._looks = True
        self._task: asyncio.Task[None] | None = None
        self._lock: int | None = None
        self._file: ViewFile | None = None
        self._view = View()
        self._cosigner: Cosigner | None = None
        self._cosign_at = 0.0
        self._failure = ""
        self.leaves = 0
        """Of the newest checkpoint that was seen."""

    def start(self) -> None:
        """Starts looking, in the running event loop."""
        if self._options.seconds:
            self._task = asyncio.create_task(self._run(), name="audit-witness")

    def look_soon(self) -> None:
        """There is a new connection: what answers may be another ledger than before."""
        self._wake.set()

    def has_looked(self) -> bool:
        """Whether a look has followed the last connection; if not, it is hurried. For a process that will end."""
        if self._task is None or not (self._looks or self._wake.is_set()):
            return True
        self._hurried.set()
        return False

    async def aclose(self) -> None:
        """Stops."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _run(self) -> None:
        least = min(_LEAST_SECONDS, self._options.seconds)
        while True:
            self._wake.clear()
            self._hurried.clear()
            self._looks = True
            with attempt("watching the ledger", event="witness.failed", foreseen=(OSError,)):
                if self._begin():
                    await self._look()
            self._looks = False
            with suppress(TimeoutError):
                async with asyncio.timeout(least):
                    await self._hurried.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._options.seconds - least):
                    await self._wake.wait()

    def _begin(self) -> bool:
        """Whether this process is the one that watches."""
        if self._file is not None:
            return True
        file = ViewFile(self._folder)
        if self._lock is None and (lock := lock_file(self._folder / "lock")) is not None:
            self._lock = lock
        if self._lock is None:
            return False
        self._view = file.load()
        self._cosigner = open_cosigner(self._folder, self._target.producer_name)
        self._file = file
        self._take_key()
        self._settle()
        return True

    def _take_key(self) -> None:
        """A key that a setting names is another log than that of another key: what was seen of that says nothing."""
        view, key = self._view, self._options.log_key
        if not key or key in {view.key, view.named}:
            view.named = key or view.named
            return
        if view.key:
            log.warning("witness.another_log", before=view.key, now=key)
        self._view = View(key=key, named=key, doubt=view.doubt, resend=view.resend)
        if view.doubt is not None and view.doubt.kind == "key":
            self._accept("the key of its log is the one that a setting names")

    async def _look(self) -> None:
        self._settle()  # what a disk refused before
        link = Connection(self._target)
        try:
            await self._look_over(link)
            self._failure = ""
        except grpc.aio.AioRpcError as error:
            if (told := describe(error)) != self._failure:
                log.info("witness.passing", reason=told)
            self._failure = told
        except Contradiction as found:
            self._doubt(found, found.note)
        finally:
            await link.aclose()

    async def _look_over(self, link: Connection) -> None:
        """One look.

        Raises:
            grpc.aio.AioRpcError: the ledger does not answer now.
            Contradiction: a row is not what it was.
        """
        view = self._view
        before = seen(view)
        answer = await self._ask_checkpoint(link, before)
        if answer is None:
            return
        if not view.key and not _is_key(answer.verifier_key):
            return
        verifier, head = read_head(view, answer)
        restores = new_restores(view, verifier, head, answer)
        try:
            check_growth(before, head, list(answer.consistency_hashes))
        except Contradiction as found:
            self._doubt(found, answer.note)
        else:
            view.key, view.note = next_key(verifier, answer), answer.note
            if view.doubt is not None and view.doubt.kind in {"key", "gone"}:
                self._accept("it is again what it was")
        if before is None:  # what was accepted before this producer came is not about its rows
            view.know(list(restores))
            restores = {}
        self._save()
        self.leaves = head.size
        told_late = bool(restores) and view.doubt is None  # it may have been restored and accepted between two looks
        if told_late or view.resend or await self._misses_rows(link, verifier, head):
            view.resend = True
            self._save()
            await self._send_again(link)
        if restores:
            said = list(restores.values())[-1]
            if view.doubt is not None:
                self._accept(f"accepted by {said.get('by')}: {said.get('reason')}")
            else:
                log.info("witness.restore_seen", by=said.get("by"), reason=said.get("reason"))
            view.know(list(restores))
            self._save()
        if view.doubt is None:
            await self._cosign(link, answer.note)

    async def _ask_checkpoint(
        self, link: Connection, before: Checkpoint | None
    ) -> proof_pb2.GetCheckpointResponse | None:
        try:
            return await get_checkpoint(link, before)
        except grpc.aio.AioRpcError as error:
            if info_of(error).reason not in _NO_SEAL:
                raise
            if before is not None:
                self._doubt(Contradiction("gone", f"it had a log of {before.size} leaves, and has none any more"))
            return None

    async def _misses_rows(self, link: Connection, verifier: Verifier, head: Checkpoint) -> bool:
        rows = AckedRows(self._root, self._target, self._options.ack_seconds, link, verifier, head)
        if missed := await rows.return_missing(self._view):
            self._note_missed(missed)
        return missed > 0

    async def _send_again(self, link: Connection) -> None:
        done = await send_again(self._root, self._target, link, self._options.ack_seconds, self._note_missed)
        self._view.resend = False
        self._save()
        log.info("witness.sent_again", rows=done.rows, were_missing=done.stored, refused=done.refused)

    def _note_missed(self, rows: int) -> None:
        self._counters.returned += rows
        if self._view.doubt is None or self._view.doubt.kind not in {"log", "row"}:
            self._doubt(Contradiction("row", "rows that it had acknowledged were missing; they are sent again"))

    async def _cosign(self, link: Connection, note: str) -> None:
        if self._cosigner is None or time.monotonic() < self._cosign_at:
            return
        line = self._cosigner.cosign(split_note(note)[0], int(time.time()))
        try:
            await add_cosignature(link, note + line)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                raise
            self._cosign_at = time.monotonic() + _UNNAMED_SECONDS

    def _doubt(self, found: Contradiction, note: str = "") -> None:
        """Tells, unless it is told already and goes on."""
        view, what = self._view, str(found)
        standing = view.doubt.kind if view.doubt is not None else ""
        # what ends by itself never takes the place of what somebody has to accept
        if standing and found.kind != "log" and (standing == found.kind or standing in {"log", "row"}):
            return
        self._counters.doubts += 1
        if note and self._file is not None:
            self._file.keep_evidence(view.key, found.seen or view.note, note, what)
            view.note = note  # from here on this log is watched, so that it is told once
        if found.row_id:
            view.tell_row(found.row_id)
        view.doubt = Told(found.kind, what)
        view.resend = view.resend or found.kind in {"log", "row"}
        self._settle()

    def _accept(self, what: str) -> None:
        kind = self._view.doubt.kind if self._view.doubt is not None else "log"
        self._view.doubt, self._view.accepted = None, Told(kind, what)
        self._settle()

    def _settle(self) -> None:
        """Tells what was not told yet. The disk knows first: the next process tells it if this one dies."""
        view = self._view
        if view.doubt is not None:
            self._doubts.set(view.doubt.what)
        self._save()
        if view.doubt is None:
            self._doubts.set("")
        if view.doubt is not None and not view.doubt.told:
            log.error("ledger.doubted", target=self._target.address, reason=view.doubt.what, hint=_HINT)
            self._put(audit_pb2.CONTROL_KIND_LEDGER_DOUBTED, view.doubt)
        if view.accepted is not None and not view.accepted.told:
            log.warning("ledger.accepted", target=self._target.address, reason=view.accepted.what)
            self._put(audit_pb2.CONTROL_KIND_LEDGER_ACCEPTED, view.accepted)
        self._save()

    def _put(self, kind: audit_pb2.ControlKind.ValueType, told: Told) -> None:
        name = self._view.key.partition("+")[0] or self._target.address
        row = control_row(kind, scope=name, reason=told.what)
        row.id = told.id
        self._tell(row)
        told.told = True

    def _save(self) -> None:
        if self._file is not None:
            self._file.save(self._view)


def _is_key(text: str) -> bool:
    try:
        Verifier.parse(text)
    except BadKey:
        return False
    return True
