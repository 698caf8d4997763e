"""The sealer: takes what was committed, in the order of the commits, and signs what it has taken.

What is written in a round: first the tiles, then the runs, last the checkpoint. Killed anywhere, the next one goes on
from the checkpoint: nobody was ever told of anything behind it.
"""

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Self

from audit_svc.ledger.side_by_side import side_by_side
from audit_svc.seal import leaf
from audit_svc.seal.errors import BadLog
from audit_svc.seal.files import replace_file
from audit_svc.seal.folder import (
    CHECKPOINT,
    ORDER,
    ROTATIONS,
    beside,
    keep_verifier,
    make_key,
    newest_checkpoint,
    read_key,
    read_keys,
    write_key,
)
from audit_svc.seal.history import History, Restore
from audit_svc.seal.key_change import KeyChange
from audit_svc.seal.leaf import KINDS, Kind
from audit_svc.seal.ledger import SealedLedger
from audit_svc.seal.log import Log, Run
from audit_svc.seal.newest_key import is_cut_short, last_change, missing, refuse_older
from audit_svc.seal.short_reads import leaves_in_parts
from audit_svc.seal.tiles import Tiles, TileWriter
from recording.transparency.errors import BadKey, BadNote
from recording.transparency.note import Signer
from recording.transparency.proof import Proof
from recording.transparency.tree import leaf_hash

ROUND_ROWS = 16_384
"""The most rows of one kind in a round, which ends with a checkpoint."""


class Sealer:
    """Seals a ledger into a log."""

    def __init__(self, ledger: SealedLedger, log: Log, key_file: Path, origin: str) -> None:
        """Goes on with the log; begins one, with a key, where none is. It closes the ledger and the log at its end.

        Raises:
            InUse: another process seals into the log.
            BadKey: it is not the log's newest; BadNote, BadLog: what is there cannot be gone on with.
        """
        with ExitStack() as opened:
            self._ledger = opened.enter_context(closing(ledger))
            self._log = opened.enter_context(closing(log))
            opened.enter_context(log.locked())
            self._key_file = key_file
            self._signers = _keys(key_file, origin, log)
            self._signed = log.read(CHECKPOINT)
            if self._signed is None:
                self._begin()
            self._index = opened.enter_context(closing(log.index(writable=True)))
            change = last_change(self._index, self._signed or b"")
            refuse_older(key_file, self.signer, change)
            size = self._signed_size()
            with log.changing(self._signed), self._index.transaction():
                self._index.forget_from(size)
                keep_verifier(log, self.signer.verifier)
            self._tiles = TileWriter(log, size)
            self._history = History(self._ledger, self._index, Tiles(log, size))
            self._last = {kind.name: self._history.last_sealed(kind) for kind in KINDS}
            self._producers = self._index.producers()
            if is_cut_short(key_file, self.signer, change):
                self._signers = [read_key(beside(key_file, "next")), self.signer]
                self._put_in_place()
            if change and change.act == "retire" and len(self._signers) > 1:  # which was cut short
                self._forget_old()
            self._opened = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    @property
    def signer(self) -> Signer:
        """The log's key."""
        return self._signers[0]

    @property
    def size(self) -> int:
        """The leaves that are signed."""
        return self._tiles.size

    def step(self) -> bool:
        """Seals what has come, and returns whether there may be more at once.

        Raises:
            Rewritten: the ledger no longer has what was sealed. Nothing more is sealed.
            BadLog: the log's own files are not what they were.
            InUse: another process has gone on with the log meanwhile.
            StoreRefused, StoreUnavailable: the ledger cannot be read now.
        """
        found: list[tuple[Kind, list[tuple[int, bytes]]]] = []
        with self._ledger.moment():
            for kind in KINDS:
                self._history.refuse_rewritten(kind, *self._last[kind.name])
            producers = self._ledger.producers()
        for kind in KINDS:
            rows = leaves_in_parts(self._ledger, kind, self._last[kind.name][0], limit=ROUND_ROWS)
            if taken := [(at, leaf_hash(said)) for at, said in rows]:
                found.append((kind, taken))
        if found:
            self._append(found, producers)
        return any(len(taken) == ROUND_ROWS for _, taken in found)

    def accept_restore(self, reason: str, by: str) -> Restore:
        """Puts on the log that the ledger was restored from a copy, what of it is lost by that, and who says so.

        That stands there too where nothing is lost by what the log says: its folder may be as old as the copy.

        Raises:
            BadLog, StoreRefused: as step().
        """
        with self._ledger.moment():
            producers = self._ledger.producers()
            restore = self._history.restore({kind.name: self._history.last_kept(kind) for kind in KINDS}, reason, by)
        self._enter(restore.leaf(int(time.time() * 1000)), producers)
        self._last = {kind.name: self._history.last_sealed(kind) for kind in KINDS}
        return restore

    def rotate_key(self, reason: str, by: str) -> KeyChange:
        """Makes another key the log's, and puts that on the log. Both sign from now on, until retire_key().

        Raises:
            BadKey: two sign already.
            BadLog, StoreRefused: as step().
        """
        if len(self._signers) > 1:
            raise BadKey("two keys sign already: end that first with `audit-svc seal key retire`")
        waiting = beside(self._key_file, "next")
        # one that is there is of a rotation that was cut short: what it signed stays good
        old = self.signer
        new = read_key(waiting) if waiting.exists() else old
        if str(new) == str(old):
            new = Signer.new(old.name)
        write_key(waiting, new)
        self._signers = [new, old]
        change = KeyChange("rotate", str(new.verifier), str(old.verifier), reason, by)
        self._enter(change.leaf(int(time.time() * 1000)))
        self._put_in_place()
        return change

    def _put_in_place(self) -> None:
        """Has the log prove its last entry, a rotation, and the keys have their names; again where it was cut short."""
        new, old = self._signers
        index, said = self._index.entries(self.size, 1)[0]
        proof = Proof.make(said.encode(), index, Tiles(self._log, self.size), (self._signed or b"").decode())
        self._log.write({f"{ROTATIONS}/{index:020d}": str(proof).encode()})
        write_key(beside(self._key_file, "old"), old)
        write_key(self._key_file, new)
        beside(self._key_file, "next").unlink()
        replace_file(beside(self._key_file, "pub"), f"{new.verifier}\n".encode())
        keep_verifier(self._log, new.verifier)

    def retire_key(self, reason: str, by: str) -> KeyChange:
        """Ends that two keys sign, puts that on the log, and removes the old one. Raises as rotate_key()."""
        last = last_change(self._index, self._signed or b"")
        if last is None or last.act != "rotate":  # the old key's file may be where it was rotated, of several replicas
            raise BadKey("one key alone signs: `audit-svc seal key rotate` begins with another")
        self._signers = self._signers[:1]
        change = KeyChange("retire", last.key, last.old, reason, by)
        self._enter(change.leaf(int(time.time() * 1000)))
        self._forget_old()
        return change

    def _forget_old(self) -> None:
        self._signers = self._signers[:1]
        beside(self._key_file, "old").unlink(missing_ok=True)

    def _enter(self, said: str, producers: Mapping[tuple[str, str], int] | None = None) -> None:
        before = self.size
        with self._log.changing(self._signed):
            self._tiles.append([leaf_hash(said.encode())])
            with self._index.transaction():
                self._index.add_entry(said, before)
                self._index.note_producers(producers or {})
            self._sign(before)

    def take_order(self) -> None:
        """Does what somebody has asked for beside the running sealer.

        Raises:
            BadKey: the key cannot be changed now. Nothing is asked for any more.
            BadLog, StoreRefused: as step().
        """
        order = self._log.read(ORDER)
        if order is None:
            return
        acts = {"restore": self.accept_restore, "rotate": self.rotate_key, "retire": self.retire_key}
        try:
            said = json.loads(order)
            act, reason, by = acts[said["act"]], str(said["reason"]), str(said["by"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            self._log.remove(ORDER)
            raise BadLog(f"{self._log.place(ORDER)} could not be read ({type(error).__name__}): ask again") from None
        try:
            act(reason, by)
        except BadKey:
            self._log.remove(ORDER)
            raise
        self._log.remove(ORDER)

    def _append(self, found: list[tuple[Kind, list[tuple[int, bytes]]]], producers: dict[tuple[str, str], int]) -> None:
        before = self.size
        new = {producer: number for producer, number in producers.items() if self._producers.get(producer) != number}
        with self._log.changing(self._signed):
            self._tiles.append([sealed for _, taken in found for _, sealed in taken])
            with self._index.transaction():
                self._index.note_producers(new)
                index = before
                for kind, taken in found:
                    for first, last in side_by_side([position for position, _ in taken]):
                        self._index.add(Run(index, kind.name, leaf.VERSION, first, last - first + 1))
                        index += last - first + 1
            self._sign(before)
        self._producers = producers
        for kind, taken in found:
            self._last[kind.name] = taken[-1]

    def _sign(self, before: int) -> None:
        self._signed = self._tiles.sign(*self._signers)
        self._tiles.tidy(before)
        self._history.tiles = Tiles(self._log, self.size)

    def _begin(self) -> None:
        """Signs a log without leaves, before there is anything else: from then on a missing checkpoint is trouble."""
        if self._log.has_begun():
            raise BadLog(
                f"{self._log.place()} has a log and no checkpoint: put it back as it was. If it is lost, move it away, "
                "and another log begins"
            )
        with self._log.changing(None):
            keep_verifier(self._log, self.signer.verifier)
            self._signed = TileWriter(self._log, 0).sign(*self._signers)

    def _signed_size(self) -> int:
        """Of the checkpoint, which one of the keys has signed. Raises BadNote, BadLog."""
        *others, last = [signer.verifier for signer in self._signers]
        for verifier in others:
            with suppress(BadNote):
                checkpoint, _ = newest_checkpoint(self._log, verifier)
                break
        else:
            checkpoint, _ = newest_checkpoint(self._log, last)
        if Tiles(self._log, checkpoint.size).root() != checkpoint.root:
            raise BadLog(f"the tiles in {self._log.place()} are not those that its checkpoint signs: restore it")
        if self._index.size() < checkpoint.size:
            raise BadLog(f"the index in {self._log.place()} is missing, or older than the checkpoint: restore it")
        return checkpoint.size


def _keys(key_file: Path, origin: str, log: Log) -> list[Signer]:
    try:
        return read_keys(key_file)
    except FileNotFoundError:
        if log.read(CHECKPOINT) is not None:
            raise missing(key_file, log) from None
        return [make_key(key_file, origin)]
