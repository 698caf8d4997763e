"""The sealer: takes what was committed, in the order of the commits, and signs what it has taken.

What reaches the disk in a round: first the tiles, then the runs, last the checkpoint. Killed anywhere, the next one
goes on from the checkpoint: nobody was ever told of anything behind it.
"""

import hashlib
import json
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any, Self

from audit_svc.ledger.side_by_side import side_by_side
from audit_svc.seal import leaf
from audit_svc.seal.errors import BadLog
from audit_svc.seal.folder import (
    CHECKPOINT,
    ORDER,
    FolderLock,
    beside,
    keep_verifier,
    make_key,
    read_checkpoint,
    read_key,
    read_keys,
    write_key,
)
from audit_svc.seal.history import History, Restore
from audit_svc.seal.index import INDEX, Index, Run
from audit_svc.seal.key_change import KeyChange
from audit_svc.seal.leaf import KINDS, Kind
from audit_svc.seal.tiles import Tiles, TileWriter, replace_file
from audit_svc.sqlite.open.connection import open_for_reading, translated
from recording.transparency import tree
from recording.transparency.checkpoint import Checkpoint
from recording.transparency.errors import BadKey, BadNote
from recording.transparency.note import Signer

ROUND_ROWS = 16_384
"""The most rows of one kind in a round, which ends with a checkpoint."""


class Sealer:
    """Seals a ledger into a folder."""

    def __init__(self, database: Path, folder: Path, key_file: Path, origin: str) -> None:
        """Goes on with the log in the folder; begins one, with a key, where none is.

        Raises:
            InUse: another process seals into the folder.
            BadKey, BadNote, BadLog: what is there cannot be gone on with.
            StoreRefused: the ledger cannot be read.
        """
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._folder = folder
        with ExitStack() as opened:
            opened.callback(FolderLock(folder).release)
            self._key_file = key_file
            self._signers = _keys(key_file, origin, folder)
            keep_verifier(folder, self.signer.verifier)
            self._ledger = opened.enter_context(closing(open_for_reading(database)))
            leaf.prepare(self._ledger)
            if not (folder / CHECKPOINT).exists():
                self._begin()
            self._index = opened.enter_context(closing(Index(folder, writable=True)))
            size = self._signed_size()
            with self._index.transaction():
                self._index.forget_from(size)
            self._tiles = TileWriter(folder, size)
            self._history = History(self._ledger, self._index, Tiles(folder, size))
            self._last = {kind.name: self._history.last_sealed(kind) for kind in KINDS}
            self._producers = self._index.producers()
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
            StoreRefused: the ledger cannot be read now.
        """
        found: list[tuple[Kind, list[tuple[int, bytes]]]] = []
        with translated(self._folder), self._ledger:  # one moment of all tables
            for kind in KINDS:
                self._history.refuse_rewritten(kind, *self._last[kind.name])
            producers = self._history.producers()
            for kind in KINDS:
                position = kind.column("position")
                rows: Any = self._ledger.execute(
                    f"{kind.select_hashed(f'{position} > ?')} LIMIT ?", (self._last[kind.name][0], ROUND_ROWS)
                )
                if taken := [(at, hashlib.sha256(hashed).digest()) for at, hashed in rows]:
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
        with translated(self._folder), self._ledger:
            producers = self._history.producers()
            restore = self._history.restore({kind.name: self._history.last_kept(kind) for kind in KINDS}, reason, by)
        said = restore.leaf(int(time.time() * 1000))
        before = self.size
        self._tiles.append([tree.leaf_hash(said.encode())])
        with self._index.transaction():
            self._index.add_entry(said, before)
            self._index.note_producers(producers)
        self._sign(before)
        self._last = {kind.name: self._history.last_sealed(kind) for kind in KINDS}
        return restore

    def rotate_key(self, reason: str, by: str) -> Signer:
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
        self._enter(KeyChange("rotate", str(new.verifier), str(old.verifier), reason, by))
        write_key(beside(self._key_file, "old"), old)
        write_key(self._key_file, new)
        waiting.unlink()
        replace_file(beside(self._key_file, "pub"), f"{new.verifier}\n".encode())
        keep_verifier(self._folder, new.verifier)
        return new

    def retire_key(self, reason: str, by: str) -> None:
        """Ends that two keys sign, puts that on the log, and removes the old one. Raises as rotate_key()."""
        if len(self._signers) < 2:
            raise BadKey("one key alone signs: `audit-svc seal key rotate` begins with another")
        new, old = self._signers
        self._signers = [new]
        self._enter(KeyChange("retire", str(new.verifier), str(old.verifier), reason, by))
        beside(self._key_file, "old").unlink()

    def _enter(self, change: KeyChange) -> None:
        said = change.leaf(int(time.time() * 1000))
        before = self.size
        self._tiles.append([tree.leaf_hash(said.encode())])
        with self._index.transaction():
            self._index.add_entry(said, before)
        self._sign(before)

    def take_order(self) -> None:
        """Accepts a restore where somebody has asked for it beside the running sealer. Raises as accept_restore()."""
        path = self._folder / ORDER
        if not path.exists():
            return
        try:
            said = json.loads(path.read_bytes())
            reason, by = str(said["reason"]), str(said["by"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            path.unlink(missing_ok=True)
            raise BadLog(f"{path} could not be read ({type(error).__name__}): ask again") from None
        self.accept_restore(reason, by)
        path.unlink(missing_ok=True)

    def _append(self, found: list[tuple[Kind, list[tuple[int, bytes]]]], producers: dict[tuple[str, str], int]) -> None:
        before = self.size
        self._tiles.append([sealed for _, taken in found for _, sealed in taken])
        new = {producer: number for producer, number in producers.items() if self._producers.get(producer) != number}
        with self._index.transaction():
            self._index.note_producers(new)
            index = before
            for kind, taken in found:
                for first, last in side_by_side([position for position, _ in taken]):
                    self._index.add(Run(index, kind.name, leaf.VERSION, first, last - first + 1))
                    index += last - first + 1
        self._producers = producers
        self._sign(before)
        for kind, taken in found:
            self._last[kind.name] = taken[-1]

    def _sign(self, before: int) -> None:
        self._tiles.sign(*self._signers)
        self._tiles.tidy(before)
        self._history.tiles = Tiles(self._folder, self.size)

    def _begin(self) -> None:
        """Signs a log without leaves, before there is anything else: from then on a missing checkpoint is trouble."""
        if any((self._folder / name).exists() for name in (INDEX, "tile")):
            raise BadLog(
                f"{self._folder} has a log and no checkpoint: put the folder back as it was. If it is lost, move it "
                "away, and another log begins"
            )
        TileWriter(self._folder, 0).sign(*self._signers)

    def _signed(self) -> Checkpoint:
        """The last checkpoint, which one of the keys has signed. Raises BadNote, BadLog."""
        *others, last = self._signers
        for signer in others:
            with suppress(BadNote):
                return read_checkpoint(self._folder / CHECKPOINT, signer.verifier)[0]
        return read_checkpoint(self._folder / CHECKPOINT, last.verifier)[0]

    def _signed_size(self) -> int:
        checkpoint = self._signed()
        if Tiles(self._folder, checkpoint.size).root() != checkpoint.root:
            raise BadLog(f"the tiles in {self._folder} are not those that its checkpoint signs: restore the folder")
        if self._index.size() < checkpoint.size:
            raise BadLog(f"{self._folder / INDEX} is missing, or older than the checkpoint: restore the folder")
        return checkpoint.size


def _keys(key_file: Path, origin: str, folder: Path) -> list[Signer]:
    try:
        return read_keys(key_file)
    except FileNotFoundError:
        if (folder / CHECKPOINT).exists():
            raise BadKey(f"{key_file} is missing, with which the log in {folder} was begun: put it back") from None
        return [make_key(key_file, origin)]
