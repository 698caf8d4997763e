"""What a producer asks about its ledger's log, and tells it: the ledger's ProofService."""

from onrecord.audit.v1 import audit_pb2, proof_pb2, questions_pb2

from recording.delivery.connection import Connection
from recording.transparency.checkpoint import Checkpoint

ANSWER_SECONDS = 10.0

_SERVICE = f"/{proof_pb2.DESCRIPTOR.services_by_name['ProofService'].full_name}"


async def get_checkpoint(link: Connection, old: Checkpoint | None) -> proof_pb2.GetCheckpointResponse:
    """The newest checkpoint, with what shows that its log begins with the old one.

    Raises:
        grpc.aio.AioRpcError: the ledger does not answer, or has no log.
    """
    request = proof_pb2.GetCheckpointRequest(old_size=old.size if old else 0)
    return await link.ask(f"{_SERVICE}/GetCheckpoint", request, proof_pb2.GetCheckpointResponse, ANSWER_SECONDS)


async def get_proof(link: Connection, kind: audit_pb2.RowKind.ValueType, row_id: str) -> str:
    """The proof that a row of this producer is in the log.

    Raises:
        grpc.aio.AioRpcError: there is none.
    """
    request = proof_pb2.GetProofRequest(kind=kind, row=questions_pb2.RowKey(id=row_id))
    return (await link.ask(f"{_SERVICE}/GetProof", request, proof_pb2.GetProofResponse, ANSWER_SECONDS)).proof


async def add_cosignature(link: Connection, note: str) -> None:
    """Hands over a checkpoint with this producer's signature.

    Raises:
        grpc.aio.AioRpcError: the ledger does not take it.
    """
    request = proof_pb2.AddCosignatureRequest(note=note)
    await link.ask(f"{_SERVICE}/AddCosignature", request, proof_pb2.AddCosignatureResponse, ANSWER_SECONDS)
