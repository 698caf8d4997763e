"""The sender's use of gRPC: requests from encoded rows, channels, and what to do about failures."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from recording import redact
from recording.channel.details import details_of, info_of
from recording.channel.options import CLIENT_OPTIONS, is_local
from recording.channel.tls import ClientFiles, channel_credentials
from recording.channel.token import Metadata, token_metadata, watch_token
from recording.log import get_logger
from recording.spool import Batch

log = get_logger(__name__)

M = TypeVar("M", bound=Message)

RecordCall = grpc.aio.StreamStreamCall[bytes, audit_pb2.RecordResponse]

_SERVICE = f"/{audit_pb2.DESCRIPTOR.services_by_name['AuditService'].full_name}"
_MAX_RETRY_SECONDS = 300.0
_TOO_NEW = common_pb2.ErrorReason.Name(common_pb2.ERROR_REASON_ROW_VERSION_TOO_NEW).removeprefix("ERROR_REASON_")
_DRAINS = common_pb2.ErrorReason.Name(common_pb2.ERROR_REASON_STORE_CLOSED).removeprefix("ERROR_REASON_")
"""The audit service's reason for the calls that its drain ends."""
_CUTS_OF_GRPC = ("Internal error from Core", "Stream removed (sendmsg")
"""How the messages of gRPC's clients begin when a write finds a call or its connection ended."""
_ENDS_OF_GRPC = ("max connection age", "Cancelling all calls")
"""What gRPC's servers say when a connection has reached its age, and of calls that outlast the grace of their end."""

# The service refuses or does not understand the gateway: an operator has to act, and until then every row is kept.
_REFUSALS = {
    grpc.StatusCode.UNAUTHENTICATED: "give the gateway a token that the audit service knows",
    grpc.StatusCode.PERMISSION_DENIED: "give the token the right to record and tell the name that it has on the list "
    "of callers (GATEWAY_PRODUCER_NAME, or a Ledger's producer_name)",
    grpc.StatusCode.UNIMPLEMENTED: "what answers there is not an audit service, or an older one",
    grpc.StatusCode.INVALID_ARGUMENT: "the audit service refuses all that this gateway sends: compare their versions",
    grpc.StatusCode.FAILED_PRECONDITION: "look at the audit service's log",
}


class ProtocolBroken(Exception):
    """What answers is no audit service as we know it."""


@dataclass(frozen=True, slots=True)
class Target:
    """The audit service's address and the credentials there."""

    address: str
    """In gRPC's form: host:port, unix:path, dns:///name:port."""
    credentials: Callable[[], grpc.ChannelCredentials] | None = None
    """Called at each connection, so that certificates may change. None: plain text."""
    metadata: Callable[[], Metadata] = tuple
    """Called at each connection, so that a token may change."""
    producer_name: str = ""
    """This gateway's name on the audit service's list of callers; empty if there is no list."""

    def producer_id(self, spool_id: str) -> str:
        """The producer id of a spool's rows, since a caller may record only under its own name."""
        return f"{self.producer_name}/{spool_id}" if self.producer_name else spool_id

    def channel(self, *options: tuple[str, int]) -> grpc.aio.Channel:
        """A new channel, with more options of gRPC than the usual ones.

        Raises:
            WrongFile: a file cannot be used.
        """
        every = [*CLIENT_OPTIONS, *options]
        if self.credentials is None:
            return grpc.aio.insecure_channel(self.address, every)
        return grpc.aio.secure_channel(self.address, self.credentials(), every)


def open_target(address: str, files: ClientFiles | None, token_file: Path | None, producer_name: str) -> Target:
    """The audit service at address.

    Raises:
        WrongFile: a file cannot be used.
    """
    token = watch_token(token_file) if token_file else None
    if token and not files and not is_local(address):
        # Not refused: a proxy beside the gateway, such as a service mesh's, may do TLS.
        log.warning("audit.token_in_plain_text", target=address, hint="set GATEWAY_AUDIT_TLS_CA")

    def metadata() -> Metadata:
        if token is None:
            return ()
        redact.protect([token.current()])
        return token_metadata(token.current())

    metadata()  # so that the token is redacted from the first row on
    return Target(address, channel_credentials(files) if files else None, metadata, producer_name)


class Connection:
    """A connection of its own: by default, a second channel would share the first one's dead connection."""

    def __init__(self, target: Target) -> None:
        self._channel = target.channel(("grpc.use_local_subchannel_pool", 1))
        self._metadata = tuple(target.metadata())

    def record(self) -> RecordCall:
        """Opens a Record stream, to which encoded requests are written."""
        method: grpc.aio.StreamStreamMultiCallable[bytes, audit_pb2.RecordResponse] = self._channel.stream_stream(
            f"{_SERVICE}/Record", response_deserializer=audit_pb2.RecordResponse.FromString
        )
        return method(metadata=self._metadata)

    async def record_batch(self, request: bytes, timeout_seconds: float) -> audit_pb2.RecordResponse:
        """Sends one encoded request, and waits for the response.

        Raises:
            grpc.aio.AioRpcError: it was not stored.
        """
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, audit_pb2.RecordResponse] = self._channel.unary_unary(
            f"{_SERVICE}/RecordBatch", response_deserializer=audit_pb2.RecordResponse.FromString
        )
        return await method(request, timeout=timeout_seconds, metadata=self._metadata)

    async def ask(self, method: str, request: Message, answer: type[M], timeout_seconds: float) -> M:
        """Calls a unary RPC of the audit service by its full name, such as /onrecord.audit.v1.ProofService/GetProof.

        Raises:
            grpc.aio.AioRpcError: it failed.
        """
        call: grpc.aio.UnaryUnaryMultiCallable[Message, M] = self._channel.unary_unary(
            method,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        return await call(request, timeout=timeout_seconds, metadata=self._metadata)

    async def aclose(self) -> None:
        """Cancels running calls, and closes the channel."""
        await self._channel.close()


def range_of(producer_id: str, batch: Batch) -> audit_pb2.SequenceRange:
    """What batch covers."""
    return audit_pb2.SequenceRange(producer_id=producer_id, first=batch.first, last=batch.last)


def encode_request(covered: audit_pb2.SequenceRange, batch: Batch) -> bytes:
    """The RecordRequest of batch: what its rows do not tell, and behind it the rows as they lie on disk."""
    head = audit_pb2.RecordRequest(range=covered, row_version=batch.row_version)
    return b"".join([head.SerializeToString(), *batch.payloads])


def retry_after_seconds(error: BaseException | None) -> float:
    """How long the service asks to wait before a retry; 0 if it does not say."""
    retry = error_details_pb2.RetryInfo()
    if any(detail.Unpack(retry) for detail in details_of(error)):
        return min(float(retry.retry_delay.ToMilliseconds()) / 1000, _MAX_RETRY_SECONDS)
    return 0.0


def refuses_batch(error: BaseException) -> bool:
    """Whether, by the status code, the batch is at fault and not the service, so that a retry cannot help."""
    if not isinstance(error, grpc.aio.AioRpcError):
        return False
    too_large = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in (error.details() or "")
    return too_large or error.code() is grpc.StatusCode.INVALID_ARGUMENT


def refusal_hint(error: BaseException) -> str | None:
    """What an operator has to do about a permanent failure; None if it may be transient."""
    return _REFUSALS.get(error.code()) if isinstance(error, grpc.aio.AioRpcError) else None


def ledger_row_version(error: BaseException | None) -> int | None:
    """The newest version of rows that the ledger knows, if it ended a call because a batch is newer; else None."""
    info = info_of(error)
    if info.reason != _TOO_NEW:
        return None
    told = info.metadata["row_version"]
    return int(told) if told.isdecimal() else 0


def is_unavailable(error: BaseException) -> bool:
    """Whether the service could not be reached, or said that it cannot serve now."""
    return isinstance(error, grpc.aio.AioRpcError) and error.code() is grpc.StatusCode.UNAVAILABLE


def is_planned_end(error: BaseException) -> bool:
    """Whether the service ended a call because it drains, or because the connection had reached its maximum age."""
    if not isinstance(error, grpc.aio.AioRpcError) or not is_unavailable(error):
        return False
    return info_of(error).reason == _DRAINS or (error.details() or "") in _ENDS_OF_GRPC


def was_cut(error: BaseException) -> bool:
    """Whether a write found its call or its connection ended, so that the service's status did not arrive."""
    return isinstance(error, grpc.aio.AioRpcError) and (error.details() or "").startswith(_CUTS_OF_GRPC)


def describe(error: BaseException) -> str:
    """A short description of the failure, for the log."""
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"[:300]
    return f"{type(error).__name__}: {error}"[:300]
