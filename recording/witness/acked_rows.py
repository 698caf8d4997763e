"""Whether the ledger still has rows that it acknowledged: a few of them are looked for in its log."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import grpc

from recording.delivery.connection import Connection, Target
from recording.kept.rows import sample
from recording.spool.records import decode_row, kind_of_row
from recording.transparency.checkpoint import Checkpoint
from recording.transparency.note import Verifier
from recording.witness.checks import KINDS, Contradiction, check_growth, check_row, read_head
from recording.witness.proofs import get_checkpoint, get_proof
from recording.witness.returning import send_batch
from recording.witness.view import View

SAMPLE_ROWS = 2

_AGREE_TRIES = 3


@dataclass(frozen=True, slots=True)
class AckedRows:
    """Those that the disk still has, beside the log that the ledger shows in one look."""

    root: Path
    """The parent of all spool folders."""
    target: Target
    ack_seconds: float
    link: Connection
    verifier: Verifier
    head: Checkpoint
    """The log's newest checkpoint, as this look began."""

    async def return_missing(self, view: View) -> int:
        """How many rows, of a few that are looked for, the ledger did not know; it has stored them again.

        view: which rows are not looked for any more, and whether the log is doubted, so that no proof is checked.

        Raises:
            grpc.aio.AioRpcError: the ledger does not answer now.
            Contradiction: it has another row in the place of one.
        """
        wanted = set(KINDS.values())
        found = await asyncio.to_thread(sample, self.root, SAMPLE_ROWS, lambda payload: kind_of_row(payload) in wanted)
        for spool_id, batch in found:
            row = decode_row(batch.payloads[0])
            if row.id in view.told_rows:
                continue
            try:
                proof = await get_proof(self.link, KINDS[type(row)], row.id)
            except grpc.aio.AioRpcError as error:
                if error.code() in {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.DATA_LOSS}:
                    await self._newest_since(self.head)  # what answers may be another than a moment ago
                if error.code() is grpc.StatusCode.NOT_FOUND:
                    # The ledger stores what it lacks, and refuses a row that was pruned, or refused before.
                    producer_id = self.target.producer_id(spool_id)
                    if stored := (await send_batch(batch, producer_id, self.link, self.ack_seconds)).stored:
                        return stored
                if error.code() is grpc.StatusCode.DATA_LOSS and view.doubt is None:
                    what = "an acknowledged row is not what was sealed, by its own words"
                    raise Contradiction("row", what, row.id) from None
                if error.code() is grpc.StatusCode.UNAVAILABLE:
                    raise
                continue  # not sealed yet, or not for this producer to ask
            if view.doubt is None:
                await self._agree(*check_row(self.verifier, row, proof))
        return 0

    async def _agree(self, other: Checkpoint, note: str) -> None:
        """That a checkpoint which came with a proof is of the log that this producer watches.

        Raises:
            Contradiction: it is not.
        """
        head = self.head
        for _ in range(_AGREE_TRIES):  # the log may grow in between
            if other.size == head.size and other.root == head.root:
                return
            later = await self._newest_since(head)
            try:
                found = await self._newest_since(other)
            except Contradiction as found_other:
                await self._newest_since(later)  # or it is the log that has become another just now
                what = "its proof of an acknowledged row is of another log"
                raise Contradiction("row", what, note=found_other.note, seen=note) from None
            other, head = found, later

    async def _newest_since(self, old: Checkpoint) -> Checkpoint:
        """The newest checkpoint.

        Raises:
            Contradiction: it does not begin with the old one.
        """
        answer = await get_checkpoint(self.link, old)
        _, checkpoint = read_head(View(key=str(self.verifier)), answer)
        try:
            check_growth(old, checkpoint, list(answer.consistency_hashes))
        except Contradiction as found:
            raise Contradiction(found.kind, str(found), note=answer.note) from None
        return checkpoint
