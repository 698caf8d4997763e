"""The errors of the door, and which status belongs to each.

An agent's exporter tries again what passes (UNAVAILABLE, RESOURCE_EXHAUSTED; HTTP 429 and 503), and drops the rest.
"""

from collections.abc import Mapping

import grpc

from service_kit.errors import InvalidRequest


class StoreUnavailable(Exception):
    """What was sent cannot be made safe now; it is to be sent again."""

    retry_after_seconds = 1.0


class ShuttingDown(Exception):
    """The service ends; what was sent is to be sent to the next one."""

    retry_after_seconds = 1.0


class TooLarge(InvalidRequest):
    """A request becomes more than its bound."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "")


class Unsupported(InvalidRequest):
    """A request in a format that is not taken."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "")


STATUSES: Mapping[type[Exception], grpc.StatusCode] = {
    StoreUnavailable: grpc.StatusCode.UNAVAILABLE,
    ShuttingDown: grpc.StatusCode.UNAVAILABLE,
}
