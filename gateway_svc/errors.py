"""Errors for the caller. What a model is told of a failed tool is no error but a tool result (see gateway_svc.tools).

GatewayError
├── SettingsError            a setting is wrong or missing                       exit code 2
├── InvalidRequest           the request cannot be carried out as written        INVALID_ARGUMENT
├── NotFound                 no such session, turn or waiting tool call          NOT_FOUND
├── Busy                     another process has the session open                 ABORTED
├── EngineNotConfigured      the engine exists, but this deployment lacks it     FAILED_PRECONDITION
├── BudgetUnknown            what a label has spent cannot be asked, mode strict  UNAVAILABLE
├── Overloaded               a limit of the gateway's is reached                 RESOURCE_EXHAUSTED
├── ShuttingDown             the gateway is about to end                         UNAVAILABLE
└── EngineError              the model server did not answer as it should
    ├── ModelNotFound        it does not have the model                          NOT_FOUND
    ├── EngineUnavailable    it cannot be reached, or answers 5xx                UNAVAILABLE
    ├── EngineRateLimited    it answers 429                                      RESOURCE_EXHAUSTED
    ├── EngineRejected       it refuses the request (another 4xx)                FAILED_PRECONDITION
    │   ├── ContextExceeded  it does so since the conversation is too long       FAILED_PRECONDITION
    │   └── ContentRefused   it does so for what the conversation says           FAILED_PRECONDITION
    └── EngineProtocolError  it breaks its own protocol                          INTERNAL
        ├── EngineBrokeOff   it fails in the middle of an answer                 INTERNAL
        └── CallNotParsed    it cannot parse the tool call that its model wrote  INTERNAL

The status codes are given in gateway_svc.servicer, the one place that knows gRPC's.

An error has two readers. Its message is for the caller and may quote a server's words. The record has its `code`, one
of a closed list, and the HTTP status: a server's words may quote the prompt, the answer or a secret.
"""

import asyncio
from typing import ClassVar

from recording.calls import Failure

CANCELLED = Failure("cancelled")
TURN_TIME_LIMIT = Failure("turn_time_limit")
INTERNAL = Failure("internal_error")


class GatewayError(Exception):
    """The root of what a caller may be told."""

    code: ClassVar[str] = "gateway_error"
    """What the record calls it; each class has its own."""


class SettingsError(GatewayError):
    """A setting is wrong or missing. The message names the environment variable."""

    code = "settings"


class InvalidRequest(GatewayError):
    """The request cannot be carried out as it is written. `field` is its field that is at fault, if one is."""

    code = "invalid_request"

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class NotFound(GatewayError):
    """What the request names is not there."""

    code = "not_found"


class Busy(GatewayError):
    """Another process holds what the request needs; trying again later can help."""

    code = "busy"


class EngineNotConfigured(GatewayError):
    """The engine is known, but this deployment has not configured it."""

    code = "engine_not_configured"


class Overloaded(GatewayError):
    """A limit of the gateway's is reached; trying again later can help."""

    code = "overloaded"


class ShuttingDown(GatewayError):
    """The gateway is about to end and begins nothing new; another one, or it after its restart, will."""

    code = "shutting_down"


class BudgetUnknown(GatewayError):
    """What a label has spent cannot be asked, and no turn may begin without."""

    code = "budget_unknown"


class EngineError(GatewayError):
    """The model server did not answer as it should.

    The message names engine, model and, where there was one, the HTTP status.
    """

    code = "engine_error"

    def __init__(self, engine: str, model: str, reason: str, http_status: int | None = None) -> None:
        status = f" answered HTTP {http_status}" if http_status is not None else ""
        super().__init__(f"engine {engine}, model {model}:{status} {reason}")
        self.engine = engine
        self.model = model
        self.reason = reason
        self.http_status = http_status


class ModelNotFound(EngineError):
    """The model server does not have the model."""

    code = "model_not_found"


class EngineUnavailable(EngineError):
    """The model server cannot be reached, or says that it cannot serve now."""

    code = "engine_unavailable"


class EngineRateLimited(EngineError):
    """The model server says that its limit is reached."""

    code = "engine_rate_limited"


class EngineRejected(EngineError):
    """The model server refuses the request: credentials, a capability that the model lacks, an unknown field."""

    code = "engine_rejected"


class ContextExceeded(EngineRejected):
    """The model server refuses the conversation since it is longer than the model's context."""

    code = "context_exceeded"


class ContentRefused(EngineRejected):
    """The model server refuses the conversation for its content."""

    code = "content_refused"


class EngineProtocolError(EngineError):
    """The model server sent what its protocol does not allow."""

    code = "engine_protocol_error"


class EngineBrokeOff(EngineProtocolError):
    """The model server began an answer and did not end it: it died, was cut off, or says that it failed."""

    code = "engine_broke_off"


class CallNotParsed(EngineProtocolError):
    """The model server could not parse the tool call that its model wrote."""

    code = "call_not_parsed"


def failure_of(error: BaseException) -> Failure:
    """What the record says of an error that ended a model request."""
    match error:
        case EngineError():
            return Failure(error.code, error.http_status)
        case GatewayError():
            return Failure(error.code)
        case asyncio.CancelledError():
            return CANCELLED
        case _:
            return INTERNAL
