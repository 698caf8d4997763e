"""What the serving process answers about the log: it reads the log, and has no key."""

import asyncio
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from audit_svc.errors import Damaged, InvalidRequest, NotFound
from audit_svc.seal import leaf
from audit_svc.seal.errors import BadLog, NotSealed
from audit_svc.seal.folder import CHECKPOINT, ROTATIONS, VERIFIER, newest_checkpoint, own_verifier
from audit_svc.seal.ledger import SealedLedger
from audit_svc.seal.log import Log
from audit_svc.seal.outside.cosigned import Cosigned
from audit_svc.seal.outside.policy import NamedWitness
from audit_svc.seal.outside.stamps import Stamps
from audit_svc.seal.proving import prove, rows_of
from audit_svc.seal.texts import texts_of
from audit_svc.seal.tiles import WIDTH, Tiles, tile_path
from recording.transparency import tree
from recording.transparency.checkpoint import Checkpoint
from recording.transparency.cosignature import Witness
from recording.transparency.errors import TransparencyError
from recording.transparency.note import Verifier
from recording.transparency.proof import Proof
from recording.transparency.tree import HASH_BYTES

MAX_RESTORES = 16
MAX_ROTATIONS = 64
_TILE = re.compile(r"tile/([0-9]{1,2})/((?:x[0-9]{3}/){0,5}[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?", re.ASCII)

TOLD = "told"
"""Beside the log, the checkpoint that the operator's command took last."""

T = TypeVar("T")


class Head(NamedTuple):
    """The newest checkpoint."""

    verifier: Verifier
    checkpoint: Checkpoint
    note: str
    """With the cosignatures of witnesses that have signed it."""
    cosigned: list[str]
    """Each checkpoint that is the newest of some witness, with the cosignatures of those; first that of most."""


class SealReader:
    """Answers from one ledger and its seal, and waits for the disk meanwhile: see ask()."""

    def __init__(
        self,
        open_ledger: Callable[[], SealedLedger],
        log: Log,
        witnesses: Callable[[], Sequence[NamedWitness]] = tuple[NamedWitness, ...],
    ) -> None:
        self._open_ledger = open_ledger
        self._log = log
        self._witnesses = witnesses
        self._cosigned = Cosigned(log)
        self._tiles = Tiles(log, 0)
        self._thread = ThreadPoolExecutor(1, "seal-reader")
        self._asked: set[Future[Any]] = set()

    async def ask(self, answer: "Callable[[SealReader], T]") -> T:
        """What answer says, which is called with this reader in its own thread."""
        asked = self._thread.submit(answer, self)
        self._asked.add(asked)
        asked.add_done_callback(self._asked.discard)
        return await asyncio.wrap_future(asked)

    def close(self) -> None:
        """Answers nothing more, and closes the log behind the answer that is under way."""
        for asked in tuple(self._asked):
            asked.cancel()
        self._thread.submit(self._log.close)  # which is that thread's
        self._thread.shutdown(wait=False)

    def head(self) -> Head:
        """Raises NotSealed: there is none yet; Damaged: it cannot be read."""
        try:
            if self._log.read(VERIFIER) is None or self._log.read(CHECKPOINT) is None:
                raise NotSealed("nothing is sealed yet: try again in a second")
            verifier = own_verifier(self._log)
            checkpoint, note = newest_checkpoint(self._log, verifier)
        except (BadLog, TransparencyError) as error:
            raise Damaged(f"the seal's checkpoint cannot be used: {error}") from None
        if checkpoint.size != self._tiles.size:
            self._tiles = Tiles(self._log, checkpoint.size)
        found = self._cosigned.checkpoints([witness.key for witness in self._witnesses()])
        most = sorted(found.values(), key=lambda signed: signed[1], reverse=True)
        return Head(
            verifier, checkpoint, found.get(note.rpartition("\n\n")[0], (note, 0))[0], [note for note, _ in most]
        )

    def consistency(self, head: Head, old_size: int) -> list[bytes]:
        """That the log begins with old_size leaves; none where there is nothing to prove. Raises Damaged."""
        if not 0 < old_size < head.checkpoint.size:
            return []
        with _damage():
            return tree.consistency_proof(old_size, head.checkpoint.size, self._tiles.subtree)

    def restores(self, head: Head) -> list[Proof]:
        """The newest entries that say that the ledger was restored, the oldest first. Raises Damaged."""
        with _damage(), closing(self._log.index()) as index:
            said = index.entries(head.checkpoint.size, MAX_RESTORES)
            return [Proof.make(leaf.encode(), at, self._tiles, head.note) for at, leaf in said]

    def key(self) -> bytes:
        """The verifier key that stands beside the log: another one where the log's key was changed. Raises BadLog."""
        return self._log.read(VERIFIER) or b""

    def rotations(self) -> list[str]:
        """The proofs of the newest rotations of the log's key, the oldest first. Raises Damaged."""
        with _damage():
            found = self._log.read_below(ROTATIONS)
            return [found[name].decode("utf-8", "replace") for name in sorted(found)[-MAX_ROTATIONS:]]

    def proof(self, kinds: Sequence[leaf.Kind], id_: str, recorded_by: str | None) -> Proof:
        """Of the one row of an id. Raises NotFound, AmbiguousId, NotSealed, Damaged, StoreRefused."""
        return self.proof_and_texts(kinds, id_, recorded_by)[0]

    def proof_and_texts(
        self, kinds: Sequence[leaf.Kind], id_: str, recorded_by: str | None
    ) -> tuple[Proof, dict[str, Any]]:
        """The same with the row's texts of that moment, as texts_of() gives them. Raises as proof()."""
        with closing(self._open_ledger()) as ledger, ledger.moment(), _damage():
            rows = rows_of(ledger, kinds, id_, recorded_by)
            head = self.head()
            made = prove(self._log, head.verifier, [*head.cosigned, head.note], rows)
            kind, position, _ = rows[-1]  # only a kind without texts has several
            return made, texts_of(ledger, kind, position)

    def tile(self, path: str) -> bytes:
        """The hashes of a tile, side by side. Raises InvalidRequest, NotFound, Damaged, NotSealed."""
        found = _TILE.fullmatch(path)
        level, n, width = _place(found) if found else (0, 0, 0)
        if not found or tile_path(level, n, width) != path or level > 63:
            raise InvalidRequest("path is not that of a tile, such as tile/0/x001/067 or tile/1/000.p/17", "path")
        size = self.head().checkpoint.size
        if min((size >> 8 * level) - n * WIDTH, WIDTH) < width:
            raise NotFound(f"the log of {size} leaves has no such tile yet", "tile", path)
        with _damage():
            return self._tiles.tile(level, n)[: width * HASH_BYTES]

    def seen_by(self, witness: Witness) -> int:
        """The leaves of the newest checkpoint that a witness has signed; 0 where it has signed none."""
        return self._cosigned.size(witness)

    def was_told(self, checkpoint: Checkpoint) -> bool:
        """Whether keep_told() was called with it last."""
        return self._log.read(TOLD) == str(checkpoint).encode()

    def keep_told(self, checkpoint: Checkpoint) -> None:
        """Remembers, over a restart too, that the operator's command has taken a checkpoint."""
        self._log.write({TOLD: str(checkpoint).encode()})

    def signed_checkpoint(self) -> bytes:
        """The newest checkpoint as the log alone has signed it. Raises NotSealed, Damaged."""
        if (said := self._log.read(CHECKPOINT)) is None:
            raise NotSealed("nothing is sealed yet: try again in a second")
        return said

    def newest_stamp(self) -> tuple[int, datetime] | None:
        """The leaves and the time of the newest time-stamp; None where there is none."""
        return Stamps(self._log).newest()

    def keep_stamp(self, note: bytes, answer: bytes) -> None:
        """Keeps an authority's answer, which was checked, to a checkpoint."""
        Stamps(self._log).keep(note, answer)

    def add_cosignature(self, note: str) -> None:
        """Keeps what a witness has signed. Raises as Cosigned.keep(), and NotSealed."""
        head = self.head()
        with _damage():
            self._cosigned.keep(note, head.verifier, [witness.key for witness in self._witnesses()], self._tiles)


@contextmanager
def _damage() -> Iterator[None]:
    """What is wrong with the log, as an error that the service has a status for."""
    try:
        yield
    except BadLog as error:
        raise Damaged(f"the seal's files are not what they were: {error}") from None


def _place(found: re.Match[str]) -> tuple[int, int, int]:
    level, number, width = found.groups()
    return int(level), int(number.replace("x", "").replace("/", "")), int(width or WIDTH)
