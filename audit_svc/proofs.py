"""onrecord.audit.v1.ProofService: what others check the ledger with. The disk is read by a thread of its own."""

from collections.abc import Callable
from typing import TypeVar

import structlog
from onrecord.audit.v1 import audit_pb2, proof_pb2, proof_pb2_grpc

from audit_svc.errors import Damaged, InvalidRequest, Unsupported
from audit_svc.query_log import QueryLog
from audit_svc.seal.leaf import BY_NAME
from audit_svc.seal.reader import SealReader
from service_kit.access.callers import current_caller
from service_kit.access.roles import Role
from service_kit.errors import Context, PermissionDenied

log = structlog.get_logger(__name__)

_KINDS = {
    number: BY_NAME[name.removeprefix("ROW_KIND_").lower()]
    for name, number in audit_pb2.RowKind.items()
    if number != audit_pb2.ROW_KIND_UNSPECIFIED
}

T = TypeVar("T")


class ProofServicer(proof_pb2_grpc.ProofServiceServicer):
    """The RPCs of onrecord.audit.v1.ProofService."""

    def __init__(self, seal: SealReader | None, query_log: QueryLog) -> None:
        """seal: None where nothing is sealed."""
        self._seal = seal
        self._query_log = query_log

    async def GetCheckpoint(  # noqa: N802 - named by the proto
        self, request: proof_pb2.GetCheckpointRequest, context: Context
    ) -> proof_pb2.GetCheckpointResponse:
        """The newest checkpoint, and the consistency proof from an earlier size."""
        if request.old_size < 0:
            raise InvalidRequest("old_size is negative", "old_size")

        def answer(seal: SealReader) -> proof_pb2.GetCheckpointResponse:
            head = seal.head()
            return proof_pb2.GetCheckpointResponse(
                note=head.note,
                consistency_hashes=seal.consistency(head, request.old_size),
                verifier_key=str(head.verifier),
                cosigned_notes=head.cosigned,
                restores=map(str, seal.restores(head)),
                rotations=seal.rotations(),
            )

        return await self._ask(answer)

    async def GetProof(  # noqa: N802 - named by the proto
        self, request: proof_pb2.GetProofRequest, context: Context
    ) -> proof_pb2.GetProofResponse:
        """The proof of a row: of its own to a producer, of any to those who may ask the ledger, which is logged."""
        kind = _KINDS.get(request.kind)
        if kind is None:
            raise InvalidRequest("kind is unset, or of a kind that this version does not know", "kind")
        if not request.row.id:
            raise InvalidRequest("row.id is empty", "row.id")
        recorded_by = request.row.recorded_by if request.row.HasField("recorded_by") else None
        caller = current_caller()
        if caller and not caller.roles & {Role.READER, Role.ADMIN}:
            if request.with_texts:
                raise PermissionDenied("the texts of a row are for readers and administrators: leave out with_texts")
            if recorded_by not in {None, caller.name}:
                raise PermissionDenied("a producer gets proofs of the rows that it recorded itself, and of no other")
            proof = await self._ask(lambda seal: seal.proof([kind], request.row.id, caller.name))
        else:
            with self._query_log.logged(request) as logged:
                proof, found = await self._ask(lambda seal: seal.proof_and_texts([kind], request.row.id, recorded_by))
                logged.rows = 1
        texts = None
        if request.with_texts:
            texts = proof_pb2.SealedTexts(salt=bytes.fromhex(found["salt"]), texts=found["texts"])
        return proof_pb2.GetProofResponse(proof=str(proof), leaf=proof.leaf.decode(), texts=texts)

    async def GetTile(  # noqa: N802 - named by the proto
        self, request: proof_pb2.GetTileRequest, context: Context
    ) -> proof_pb2.GetTileResponse:
        """One tile."""
        return proof_pb2.GetTileResponse(data=await self._ask(lambda seal: seal.tile(request.path)))

    async def AddCosignature(  # noqa: N802 - named by the proto
        self, request: proof_pb2.AddCosignatureRequest, context: Context
    ) -> proof_pb2.AddCosignatureResponse:
        """Keeps what a witness has signed."""
        try:
            await self._ask(lambda seal: seal.add_cosignature(request.note))
        except Damaged as error:
            log.error("seal.contradicted", reason=str(error))
            raise
        return proof_pb2.AddCosignatureResponse()

    async def _ask(self, answer: Callable[[SealReader], T]) -> T:
        if self._seal is None:
            raise Unsupported("nothing is sealed here: AUDIT_SEAL_SECONDS is 0")
        return await self._seal.ask(answer)
