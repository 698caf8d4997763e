"""What a failed call's status has beside its code and its text: google.rpc.Status, in a trailer of the answer.

Of errors of grpc's clients and of grpc.aio's. Only services send it: what gRPC's own library says of a call, such as
that its connection broke, has none.
"""

from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf import any_pb2, message
from google.rpc import error_details_pb2, status_pb2

_TRAILER = "grpc-status-details-bin"


def has_details(error: BaseException | None) -> bool:
    """Whether a service has said it, and not gRPC's library."""
    return any(key == _TRAILER for key, _ in _trailers(error))


def details_of(error: BaseException | None) -> list[any_pb2.Any]:
    """All details; none where they cannot be read."""
    for key, value in _trailers(error):
        if key == _TRAILER and isinstance(value, bytes):
            try:
                return list(status_pb2.Status.FromString(value).details)
            except message.DecodeError:
                return []
    return []


def info_of(error: BaseException | None) -> error_details_pb2.ErrorInfo:
    """The first ErrorInfo; an empty one where there is none."""
    info = error_details_pb2.ErrorInfo()
    return info if any(detail.Unpack(info) for detail in details_of(error)) else error_details_pb2.ErrorInfo()


def _trailers(error: BaseException | None) -> Sequence[tuple[str, str | bytes]]:
    failed: Any = error
    return failed.trailing_metadata() or () if isinstance(error, grpc.RpcError) else ()
