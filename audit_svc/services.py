"""The ledger's gRPC services on one server: who may call what, and the status of each error."""

from collections.abc import Mapping

import grpc
from onrecord.audit.v1 import (
    administration_pb2,
    administration_pb2_grpc,
    audit_pb2,
    audit_pb2_grpc,
    proof_pb2,
    proof_pb2_grpc,
    questions_pb2,
    questions_pb2_grpc,
)

from audit_svc.care import AdministrationServicer
from audit_svc.errors import (
    AlreadyExists,
    AlreadyRunning,
    AmbiguousId,
    ClockJumped,
    Damaged,
    DiskFull,
    Held,
    InvalidRequest,
    NotFound,
    Overloaded,
    QueueFull,
    RowVersionTooNew,
    StoreRefused,
    StoreUnavailable,
    TailBehind,
    Unsupported,
)
from audit_svc.ledger.protocol import Ledger
from audit_svc.proofs import ProofServicer
from audit_svc.query_log import QueryLog
from audit_svc.questions import QuestionServicer
from audit_svc.seal.errors import NotSealed
from audit_svc.seal.reader import SealReader
from audit_svc.servicer import AuditServicer
from service_kit.access.interceptor import Rules, rules_for
from service_kit.access.roles import Role
from service_kit.errors import ErrorInterceptor
from service_kit.paging import InvalidPage

_PRODUCERS, _READERS, _ADMINS = (
    frozenset({Role.PRODUCER}),
    frozenset({Role.READER, Role.ADMIN}),
    frozenset({Role.ADMIN}),
)
_ALL = _PRODUCERS | _READERS
ROLES: Mapping[str, Mapping[str, frozenset[Role]]] = {
    audit_pb2.DESCRIPTOR.services_by_name["AuditService"].full_name: {
        "Record": _PRODUCERS,
        "RecordBatch": _PRODUCERS,
    },
    questions_pb2.DESCRIPTOR.services_by_name["QuestionService"].full_name: {
        "ListToolCalls": _READERS,
        "ListSessionRecords": _READERS,
        "GetSessionRecord": _READERS,
        "ListModelRequests": _READERS,
        "ListControls": _READERS,
        "ListProducers": _READERS,
        "SummarizeUsage": _READERS,
        "TailToolCalls": _READERS,
        "ExportToolCalls": _READERS,
        "TailModelRequests": _READERS,
        "ExportModelRequests": _READERS,
    },
    administration_pb2.DESCRIPTOR.services_by_name["AdministrationService"].full_name: {
        "ListQueries": _ADMINS,
        "Prune": _ADMINS,
        "Erase": _ADMINS,
        "PlaceHold": _ADMINS,
        "LiftHold": _ADMINS,
        "ListHolds": _ADMINS,
        "Backup": _ADMINS,
    },
    proof_pb2.DESCRIPTOR.services_by_name["ProofService"].full_name: {
        "GetCheckpoint": _ALL,
        "GetProof": _ALL,
        "GetTile": _READERS,
        "AddCosignature": _ALL,
    },
}
"""Who may call what, by the full names of the services; docs/security.md has it as a table."""

RECORD_BATCH = f"/{audit_pb2.DESCRIPTOR.services_by_name['AuditService'].full_name}/RecordBatch"
"""Its batches say by their row_version whether this ledger knows all their fields."""

OF_THE_WRITER = frozenset(
    f"/{service}/{method}"
    for service, roles in ROLES.items()
    for method in roles
    if service.endswith(".AuditService") or method in ("Prune", "Erase", "PlaceHold", "LiftHold", "ListHolds")
)
"""What only the replica that writes does; another one passes it on (audit_svc.forwarding)."""

STATUSES: Mapping[type[Exception], grpc.StatusCode] = {
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    InvalidPage: grpc.StatusCode.INVALID_ARGUMENT,
    RowVersionTooNew: grpc.StatusCode.FAILED_PRECONDITION,
    NotFound: grpc.StatusCode.NOT_FOUND,
    AmbiguousId: grpc.StatusCode.FAILED_PRECONDITION,
    StoreRefused: grpc.StatusCode.FAILED_PRECONDITION,
    NotSealed: grpc.StatusCode.FAILED_PRECONDITION,
    ClockJumped: grpc.StatusCode.FAILED_PRECONDITION,
    AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    Held: grpc.StatusCode.FAILED_PRECONDITION,
    AlreadyRunning: grpc.StatusCode.ABORTED,
    Unsupported: grpc.StatusCode.UNIMPLEMENTED,
    Damaged: grpc.StatusCode.DATA_LOSS,
    QueueFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    TailBehind: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DiskFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    StoreUnavailable: grpc.StatusCode.UNAVAILABLE,
}


def rules() -> Rules:
    """The rules of all services."""
    return {rpc: allowed for service, roles in ROLES.items() for rpc, allowed in rules_for(service, roles).items()}


def error_interceptor() -> ErrorInterceptor:
    """Gives the ledger's errors their status codes."""
    return ErrorInterceptor(
        STATUSES, retry_after_seconds={QueueFull: 0.25, Overloaded: 1.0, DiskFull: 5.0, NotSealed: 1.0}
    )


class LedgerServices:
    """AuditService, QuestionService, AdministrationService and ProofService of one ledger."""

    def __init__(self, ledger: Ledger, seal: SealReader | None = None) -> None:
        """seal: None where nothing is sealed."""
        self._query_log = QueryLog(ledger, STATUSES)
        self._audit = AuditServicer(ledger)
        self._questions = QuestionServicer(ledger, self._query_log)
        self._administration = AdministrationServicer(ledger, self._query_log)
        self._proofs = ProofServicer(seal, self._query_log)

    def add_to(self, server: grpc.aio.Server) -> None:
        """Has server answer their RPCs."""
        audit_pb2_grpc.add_AuditServiceServicer_to_server(self._audit, server)
        questions_pb2_grpc.add_QuestionServiceServicer_to_server(self._questions, server)
        administration_pb2_grpc.add_AdministrationServiceServicer_to_server(self._administration, server)
        proof_pb2_grpc.add_ProofServiceServicer_to_server(self._proofs, server)

    def begin_drain(self) -> None:
        """Begins nothing new: streams of producers end when what was queued is committed, tails at once."""
        self._audit.begin_drain()
        self._questions.begin_drain()

    async def close(self) -> None:
        """Writes the last rows of the log of queries."""
        await self._query_log.close()
