"""What the sender has to know of gRPC: requests made of bytes that exist, channels, what failures ask for."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import structlog
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from onrecord.audit.v1 import audit_pb2

from recording import redact
from recording.channel.options import CLIENT_OPTIONS, is_local
from recording.channel.tls import ClientFiles, channel_credentials
from recording.channel.token import Metadata, token_metadata, watch_token
from recording.spool import Batch
from recording.spool.records import encode_varint

log = structlog.get_logger(__name__)

RecordCall = grpc.aio.StreamStreamCall[bytes, audit_pb2.RecordResponse]

_SERVICE = f"/{audit_pb2.DESCRIPTOR.services_by_name['AuditService'].full_name}"
_STATUS_DETAILS = "grpc-status-details-bin"
_MAX_RETRY_SECONDS = 300.0
_DRAINS = "STORE_CLOSED"
"""The audit service's reason for the calls that its drain ends."""
_ENDS_OF_GRPC = ("max connection age", "Cancelling all calls")
"""What gRPC's servers say when a connection has reached its age, and of calls that outlast the grace of their end."""
_PRODUCER_ID_TAG = bytes([audit_pb2.RecordRequest.PRODUCER_ID_FIELD_NUMBER << 3 | 2])
_SEQUENCE_TAG = bytes([audit_pb2.RecordRequest.SEQUENCE_FIELD_NUMBER << 3])
_FIRST_SEQUENCE_TAG = bytes([audit_pb2.RecordRequest.FIRST_SEQUENCE_FIELD_NUMBER << 3])

# Nobody is let in or understood: an operator has to do something, and until then every row is kept.
_REFUSALS = {
    grpc.StatusCode.UNAUTHENTICATED: "give the gateway a token that the audit service knows",
    grpc.StatusCode.PERMISSION_DENIED: "give the gateway's token the right to record",
    grpc.StatusCode.UNIMPLEMENTED: "what answers there is no audit service, or an older one",
    grpc.StatusCode.INVALID_ARGUMENT: "the audit service takes nothing that this gateway sends: compare their versions",
    grpc.StatusCode.FAILED_PRECONDITION: "look at the audit service's log",
}


@dataclass(frozen=True, slots=True)
class Target:
    """Where the audit service is, and how to come in."""

    address: str
    """As gRPC names it: host:port, unix:path, dns:///name:port."""
    credentials: Callable[[], grpc.ChannelCredentials] | None = None
    """Asked at each connection, so that certificates may change. None: plain text."""
    metadata: Callable[[], Metadata] = tuple
    """Asked at each connection, so that a token may change."""
    producer_name: str = ""
    """The name that the audit service's list of callers has for this gateway; empty where it keeps none."""

    def producer_id(self, spool_id: str) -> str:
        """What the rows of a spool are sent under: a caller may record under its own name alone."""
        return f"{self.producer_name}/{spool_id}" if self.producer_name else spool_id


def open_target(address: str, files: ClientFiles | None, token_file: Path | None, producer_name: str) -> Target:
    """The audit service at address.

    Raises:
        WrongFile: a file cannot be used.
    """
    token = watch_token(token_file) if token_file else None
    if token and not files and not is_local(address):
        # Not refused: something beside the gateway, such as a mesh's proxy, may do TLS.
        log.warning("audit.token_in_plain_text", target=address, hint="set GATEWAY_AUDIT_TLS_CA")

    def metadata() -> Metadata:
        if token is None:
            return ()
        redact.protect([token.current()])
        return token_metadata(token.current())

    metadata()  # so that the token is kept off the record from the first row on
    return Target(address, channel_credentials(files) if files else None, metadata, producer_name)


class Connection:
    """A channel of its own, since gRPC would give a second channel the first one's dead connection."""

    def __init__(self, target: Target) -> None:
        options = [*CLIENT_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
        if target.credentials is None:
            self._channel = grpc.aio.insecure_channel(target.address, options)
        else:
            self._channel = grpc.aio.secure_channel(target.address, target.credentials(), options)
        self._metadata = tuple(target.metadata())

    def record(self) -> RecordCall:
        """Opens a Record stream, to which encoded requests are written."""
        method: grpc.aio.StreamStreamMultiCallable[bytes, audit_pb2.RecordResponse] = self._channel.stream_stream(
            f"{_SERVICE}/Record", response_deserializer=audit_pb2.RecordResponse.FromString
        )
        return method(metadata=self._metadata)

    async def record_batch(self, request: bytes, timeout_seconds: float) -> audit_pb2.RecordResponse:
        """Sends one encoded request, and waits.

        Raises:
            grpc.aio.AioRpcError: it was not stored.
        """
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, audit_pb2.RecordResponse] = self._channel.unary_unary(
            f"{_SERVICE}/RecordBatch", response_deserializer=audit_pb2.RecordResponse.FromString
        )
        return await method(request, timeout=timeout_seconds, metadata=self._metadata)

    async def aclose(self) -> None:
        """Ends what is under way, and closes the channel."""
        await self._channel.close()


def encode_request(producer_id: str, batch: Batch) -> bytes:
    """The RecordRequest of batch."""
    producer = producer_id.encode()
    head = [
        _PRODUCER_ID_TAG,
        encode_varint(len(producer)),
        producer,
        _SEQUENCE_TAG,
        encode_varint(batch.last),
        _FIRST_SEQUENCE_TAG,
        encode_varint(batch.first),
    ]
    return b"".join(head + batch.payloads)


def retry_after_seconds(error: BaseException | None) -> float:
    """How long the service asks to be left alone; 0 when it does not say."""
    retry = error_details_pb2.RetryInfo()
    if any(detail.Unpack(retry) for detail in _details(error)):
        return min(float(retry.retry_delay.ToMilliseconds()) / 1000, _MAX_RETRY_SECONDS)
    return 0.0


def refuses_batch(error: BaseException) -> bool:
    """Whether the failure is, by its contract, one of the batch and not of the service: another try will not help."""
    if not isinstance(error, grpc.aio.AioRpcError):
        return False
    too_large = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in (error.details() or "")
    return too_large or error.code() is grpc.StatusCode.INVALID_ARGUMENT


def refusal_hint(error: BaseException) -> str | None:
    """What an operator has to do about a failure that no waiting cures; None for one that may pass."""
    return _REFUSALS.get(error.code()) if isinstance(error, grpc.aio.AioRpcError) else None


def is_unavailable(error: BaseException) -> bool:
    """Whether the service could not be reached, or said that it cannot serve now."""
    return isinstance(error, grpc.aio.AioRpcError) and error.code() is grpc.StatusCode.UNAVAILABLE


def is_planned_end(error: BaseException) -> bool:
    """Whether the service ended what was under way since it drains, or since the connection had reached its age."""
    if not isinstance(error, grpc.aio.AioRpcError) or not is_unavailable(error):
        return False
    info = error_details_pb2.ErrorInfo()
    draining = any(detail.Unpack(info) and info.reason == _DRAINS for detail in _details(error))
    return draining or (error.details() or "") in _ENDS_OF_GRPC


def describe(error: BaseException) -> str:
    """The failure in a few words, for the log."""
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"[:300]
    return f"{type(error).__name__}: {error}"[:300]


def _details(error: BaseException | None) -> list[any_pb2.Any]:
    """What a status has beside its text (google.rpc.Status)."""
    metadata = error.trailing_metadata() if isinstance(error, grpc.aio.AioRpcError) else ()
    for key, value in metadata or ():
        if key == _STATUS_DETAILS and isinstance(value, bytes):
            return list(status_pb2.Status.FromString(value).details)
    return []
