"""A ledger with a signed log in memory, which a test rolls back, forks, or lets forget rows."""

import base64
import json
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from onrecord.audit.v1 import audit_pb2, proof_pb2

from recording.transparency import tree
from recording.transparency.checkpoint import Checkpoint
from recording.transparency.note import Signer
from recording.transparency.proof import Proof
from tests.recording.fake_audit import Context, FakeAudit

ORIGIN = "ledger.example.com/test"


class FakeLog(FakeAudit):
    """Stores rows, and seals each at once."""

    def __init__(self) -> None:
        super().__init__()
        self.signer = Signer.new(ORIGIN)
        self.leaves: list[bytes] = []
        self.no_seal = ""
        """The reason why nothing is sealed, such as UNSUPPORTED."""
        self.looks = 0
        self.cosigned: list[str] = []
        self.forget_only_in_log = False

    @property
    def size(self) -> int:
        """For Proof.make()."""
        return len(self.leaves)

    def subtree(self, height: int, n: int) -> bytes:
        """For Proof.make()."""
        return tree.fold([tree.leaf_hash(leaf) for leaf in self.leaves[n << height : (n + 1) << height]])

    @property
    def controls(self) -> list[audit_pb2.ControlRow]:
        """Those that came."""
        return [row for request in self.requests for row in request.controls]

    async def store(self, request: audit_pb2.RecordRequest, context: Context) -> audit_pb2.RecordResponse:
        """Stores the rows, and seals those that are new."""
        known = set(self.ledger)
        response = await super().store(request, context)
        for row in request.tool_calls:
            if row.id not in known:
                self.leaves.append(leaf_of(row))
        return response

    def forget(self, *ids: str) -> None:
        """Rows that the ledger has no more."""
        for id_ in ids:
            del self.ledger[id_]

    def accept(self, reason: str) -> None:
        """What accept-restore puts on the log."""
        self.leaves.append(json.dumps({"kind": "entry", "act": "restore", "by": "ada", "reason": reason}).encode())

    def note(self) -> str:
        """The signed checkpoint."""
        root = tree.root(self.size, self.subtree)
        return self.signer.sign(str(Checkpoint(self.signer.name, self.size, root)))

    async def get_checkpoint(
        self, request: proof_pb2.GetCheckpointRequest, context: Any
    ) -> proof_pb2.GetCheckpointResponse:
        """The RPC."""
        self.looks += 1
        if self.no_seal:
            await abort(context, grpc.StatusCode.UNIMPLEMENTED, self.no_seal)
        hashes = []
        if 0 < request.old_size < self.size:
            hashes = tree.consistency_proof(request.old_size, self.size, self.subtree)
        note = self.note()
        restores = [
            str(Proof.make(leaf, at, self, note)) for at, leaf in enumerate(self.leaves) if b'"restore"' in leaf
        ]
        return proof_pb2.GetCheckpointResponse(
            note=note, consistency_hashes=hashes, verifier_key=str(self.signer.verifier), restores=restores
        )

    async def get_proof(self, request: proof_pb2.GetProofRequest, context: Any) -> proof_pb2.GetProofResponse:
        """The RPC."""
        row = self.ledger.get(request.row.id)
        if not isinstance(row, audit_pb2.AuditRow) or self.forget_only_in_log:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such row")
        assert isinstance(row, audit_pb2.AuditRow)
        if leaf_of(row) not in self.leaves:
            await abort(context, grpc.StatusCode.FAILED_PRECONDITION, "NOT_SEALED")
        made = Proof.make(leaf_of(row), self.leaves.index(leaf_of(row)), self, self.note())
        return proof_pb2.GetProofResponse(proof=str(made), leaf=made.leaf.decode())

    async def add_cosignature(
        self, request: proof_pb2.AddCosignatureRequest, context: Any
    ) -> proof_pb2.AddCosignatureResponse:
        """The RPC."""
        self.cosigned.append(request.note)
        return proof_pb2.AddCosignatureResponse()

    def proof_service(self) -> grpc.GenericRpcHandler:
        """For serving()."""
        name = proof_pb2.DESCRIPTOR.services_by_name["ProofService"].full_name
        methods: dict[str, tuple[Any, Any]] = {
            "GetCheckpoint": (self.get_checkpoint, proof_pb2.GetCheckpointRequest),
            "GetProof": (self.get_proof, proof_pb2.GetProofRequest),
            "AddCosignature": (self.add_cosignature, proof_pb2.AddCosignatureRequest),
        }
        handlers: dict[str, Any] = {
            method: grpc.unary_unary_rpc_method_handler(
                answer,
                request.FromString,
                lambda message: message.SerializeToString(),
            )
            for method, (answer, request) in methods.items()
        }
        return grpc.method_handlers_generic_handler(name, handlers)


def leaf_of(row: audit_pb2.AuditRow) -> bytes:
    """As docs/seal-format.md has it, as far as a producer looks."""
    said = {"kind": "tool_call", "id": row.id, "tool_name": row.tool_name}
    numbers = {"duration_ms": str(row.duration_ms), "created_at": str(row.created_at_ms)}
    return json.dumps({**said, **numbers}, sort_keys=True).encode()


async def abort(context: Any, code: grpc.StatusCode, reason: str) -> None:
    """Ends a call with a reason."""
    packed = any_pb2.Any()
    packed.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="onrecord.dev"))
    status = status_pb2.Status(code=code.value[0], message=reason, details=[packed])
    await context.abort(code, reason, (("grpc-status-details-bin", status.SerializeToString()),))


def text_of(note: str) -> str:
    """The base64 of a checkpoint's root."""
    return base64.b64encode(Checkpoint.parse(note.partition("\n\n")[0] + "\n").root).decode()
