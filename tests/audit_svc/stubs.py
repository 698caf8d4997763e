"""A client's stubs of the ledger's services."""

from typing import Any

from onrecord.audit.v1 import administration_pb2_grpc, audit_pb2_grpc, proof_pb2_grpc, questions_pb2_grpc


class LedgerStub:
    """The RPCs of all services, on a channel of grpc or of grpc.aio."""

    def __init__(self, channel: Any) -> None:
        stubs: list[Any] = [
            audit_pb2_grpc.AuditServiceStub(channel),
            questions_pb2_grpc.QuestionServiceStub(channel),
            administration_pb2_grpc.AdministrationServiceStub(channel),
            proof_pb2_grpc.ProofServiceStub(channel),
        ]
        for stub in stubs:
            vars(self).update(vars(stub))

    def __getattr__(self, name: str) -> Any:
        """None but those."""
        raise AttributeError(name)
