"""The sealer: takes what was committed, in the order of the commits, and signs what it has taken.

What reaches the disk in a round: first the tiles, then the runs, last the checkpoint. Killed anywhere, the next one
goes on from the checkpoint: nobody was ever told of anything behind it.
"""

import hashlib
import json
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Self

from audit_svc.ledger.side_by_side import side_by_side
from audit_svc.seal import leaf
from audit_svc.seal.errors import BadLog
from audit_svc.seal.folder import CHECKPOINT, ORDER, FolderLock, keep_verifier, make_key, read_checkpoint, read_key
from audit_svc.seal.history import History, Restore
from audit_svc.seal.index import INDEX, Index, Run
from audit_svc.seal.leaf import KINDS, Kind
from audit_svc.seal.tiles import Tiles, TileWriter
from audit_svc.sqlite.open.connection import open_for_reading, translated
from recording.transparency import tree
from recording.transparency.errors import BadKey
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
            self.signer = _key(key_file, origin, folder)
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
        self._tiles.sign(self.signer)
        self._tiles.tidy(before)
        self._history.tiles = Tiles(self._folder, self.size)

    def _begin(self) -> None:
        """Signs a log without leaves, before there is anything else: from then on a missing checkpoint is trouble."""
        if any((self._folder / name).exists() for name in (INDEX, "tile")):
            raise BadLog(
                f"{self._folder} has a log and no checkpoint: put the folder back as it was. If it is lost, move it "
                "away, and another log begins"
            )
        TileWriter(self._folder, 0).sign(self.signer)

    def _signed_size(self) -> int:
        checkpoint, _ = read_checkpoint(self._folder / CHECKPOINT, self.signer.verifier)
        if Tiles(self._folder, checkpoint.size).root() != checkpoint.root:
            raise BadLog(f"the tiles in {self._folder} are not those that its checkpoint signs: restore the folder")
        if self._index.size() < checkpoint.size:
            raise BadLog(f"{self._folder / INDEX} is missing, or older than the checkpoint: restore the folder")
        return checkpoint.size


def _key(key_file: Path, origin: str, folder: Path) -> Signer:
    try:
        return read_key(key_file)
    except FileNotFoundError:
        if (folder / CHECKPOINT).exists():
            raise BadKey(f"{key_file} is missing, with which the log in {folder} was begun: put it back") from None
        return make_key(key_file, origin)
