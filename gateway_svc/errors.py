"""Errors for the caller. A failed tool is not an error but a tool result for the model (see gateway_svc.tools).

GatewayError
├── SettingsError            a setting is wrong or missing                       exit code 2
├── InvalidRequest           the request cannot be carried out as written        INVALID_ARGUMENT
├── NotFound                 no such session, turn or waiting tool call          NOT_FOUND
├── AlreadyExists            the same id stands for something else already       ALREADY_EXISTS
├── EventsGone               events of a turn are not kept any more              OUT_OF_RANGE
├── Interrupted              the gateway ended in the middle of the turn         ABORTED
├── Busy                     another process has the session open                 ABORTED
├── EngineNotConfigured      this deployment has not configured the engine       FAILED_PRECONDITION
├── Stopped                  an administrator has stopped what the turn is of    FAILED_PRECONDITION
├── BudgetUnknown            mode strict, and the ledger does not answer         UNAVAILABLE
├── StoreUnavailable         the state directory cannot be used                  UNAVAILABLE
│   ├── DiskFull             because its disk is full                            RESOURCE_EXHAUSTED
│   └── LeaseLost            because another gateway has taken the session       ABORTED
├── Damaged                  what a session is cannot be read                    DATA_LOSS
│   └── KeyMissing           because the key that it is encrypted by is not here FAILED_PRECONDITION
├── Overloaded               a limit of the gateway is reached                   RESOURCE_EXHAUSTED
│   └── ReadTooSlowly        with other slow clients of turns                    RESOURCE_EXHAUSTED
├── ShuttingDown             the gateway is shutting down                        UNAVAILABLE
└── EngineError              the model server failed
    ├── ModelNotFound        it does not have the model                          NOT_FOUND
    ├── EngineUnavailable    it cannot be reached, or answers 5xx                UNAVAILABLE
    ├── EngineRateLimited    it answers 429                                      RESOURCE_EXHAUSTED
    ├── EngineRejected       it refuses the request (another 4xx)                FAILED_PRECONDITION
    │   ├── ContextExceeded  because the conversation is too long                FAILED_PRECONDITION
    │   └── ContentRefused   because of the conversation's content               FAILED_PRECONDITION
    └── EngineProtocolError  it breaks its own protocol                          INTERNAL
        ├── EngineBrokeOff   it fails in the middle of an answer                 INTERNAL
        ├── AnswerTooLarge   its answer goes beyond a bound                      INTERNAL
        └── CallNotParsed    it cannot parse the tool call that its model wrote  INTERNAL

gateway_svc.servicer maps them to status codes, of a call where nothing ran, else of a turn's last event.

An error has two readers. Its message is for the caller and may quote the server. The record gets its `code`, from a
closed list, and the HTTP status, since a server's words may quote the prompt, the answer or a secret.
"""

import asyncio
import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from recording.calls import Failure

CANCELLED = Failure("cancelled")
TURN_TIME_LIMIT = Failure("turn_time_limit")
INTERNAL = Failure("internal_error")
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}


class GatewayError(Exception):
    """The base class of errors that callers see."""

    code: ClassVar[str] = "gateway_error"
    """Its name on the record; each class has its own."""


class SettingsError(GatewayError):
    """A setting is wrong or missing. The message names the environment variable."""

    code = "settings"


class InvalidRequest(GatewayError):
    """The request cannot be carried out as written. `field` names the field at fault, if there is one."""

    code = "invalid_request"

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class _AboutOne(GatewayError):
    """An error about one thing that the request names: its kind, such as session, and its id."""

    def __init__(self, message: str, resource: str, id_: str) -> None:
        super().__init__(message)
        self.resource = resource
        self.id = id_


class NotFound(_AboutOne):
    """What the request names does not exist."""

    code = "not_found"


class AlreadyExists(_AboutOne):
    """The same id stands for something else already."""

    code = "already_exists"


class DigestMismatch(_AboutOne):
    """An answer is for other arguments than those of the call that it names."""

    code = "digest_mismatch"


class PolicyChanged(_AboutOne):
    """An answer allows a call that was asked about under other rules than those in force."""

    code = "policy_changed"


class EventsGone(GatewayError):
    """Events of a turn that were asked for are not kept any more; `first` is the oldest that is."""

    code = "events_gone"

    def __init__(self, first: int) -> None:
        super().__init__(f"the events before {first} are not kept any more: go on from there")
        self.metadata = {"first_sequence": str(first)}


class Interrupted(GatewayError):
    """The gateway ended in the middle of the turn."""

    code = "interrupted"


class Busy(GatewayError):
    """Another process holds what the request needs; trying again later can help."""

    code = "busy"

    def __init__(self, message: str, gateway: int | None = None) -> None:
        super().__init__(message)
        self.gateway = gateway
        """Which of those that share sessions runs what is asked for, if it is known that one does."""


class EngineNotConfigured(_AboutOne):
    """The engine exists, but this deployment has not configured it."""

    code = "engine_not_configured"

    def __init__(self, message: str, engine: str) -> None:
        super().__init__(message, "engine", engine)


class Stopped(GatewayError):
    """An administrator has stopped what the turn is of; it can run when the stop with this id is lifted."""

    code = "stopped"

    def __init__(self, message: str, stop_id: str) -> None:
        super().__init__(message)
        self.metadata = {"stop_id": stop_id}


class StoreUnavailable(GatewayError, OSError):
    """The state directory cannot be used now."""

    code = "store_unavailable"


class DiskFull(StoreUnavailable):
    """The state directory's disk has no room now."""

    code = "disk_full"


class LeaseLost(StoreUnavailable):
    """Another gateway has taken the session over, since this one was paused or cut off: its turn ends here."""

    code = "lease_lost"


class Damaged(_AboutOne):
    """What the request names is damaged on disk."""

    code = "damaged"


class KeyMissing(Damaged):
    """A session is encrypted by a key that this gateway has not; it can be read when the key is there."""

    code = "key_missing"


class Overloaded(GatewayError):
    """A limit of the gateway is reached; trying again later can help."""

    code = "overloaded"


class ReadTooSlowly(Overloaded):
    """A client reads its turn so slowly that its events, with those of others like it, take too much memory."""

    code = "read_too_slowly"


class ShuttingDown(GatewayError):
    """The gateway is shutting down and starts nothing new; try another one, or this one after its restart."""

    code = "shutting_down"


class BudgetUnknown(GatewayError):
    """The ledger does not answer what a label has spent, and in mode `strict` no turn may start without it."""

    code = "budget_unknown"


class EngineError(GatewayError):
    """The model server failed.

    The message names the engine, the model and the HTTP status, if there was one.
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
    resource = "model"

    @property
    def id(self) -> str:
        """The model."""
        return self.model


class EngineUnavailable(EngineError):
    """The model server cannot be reached, or says that it is unavailable."""

    code = "engine_unavailable"


class EngineRateLimited(EngineError):
    """The model server says that a rate limit is reached."""

    code = "engine_rate_limited"


class EngineRejected(EngineError):
    """The model server refuses the request: credentials, a capability that the model lacks, an unknown field."""

    code = "engine_rejected"


class ContextExceeded(EngineRejected):
    """The model server refuses the conversation because it exceeds the model's context."""

    code = "context_exceeded"


class ContentRefused(EngineRejected):
    """The model server refuses the conversation because of its content."""

    code = "content_refused"


class EngineProtocolError(EngineError):
    """The model server violated its protocol."""

    code = "engine_protocol_error"


class EngineBrokeOff(EngineProtocolError):
    """The model server began an answer and did not finish it: it died, lost the connection, or reported a failure."""

    code = "engine_broke_off"


class AnswerTooLarge(EngineProtocolError):
    """The model server's answer goes beyond a bound, whose name is `bound` (see service_kit.bounds)."""

    code = "answer_too_large"

    def __init__(self, engine: str, model: str, reason: str, bound: str) -> None:
        super().__init__(engine, model, reason)
        self.bound = bound


class CallNotParsed(EngineProtocolError):
    """The model server could not parse the tool call that its model wrote."""

    code = "call_not_parsed"


@contextmanager
def storing() -> Iterator[None]:
    """Makes an OSError of the body, which works on the state directory, one that tells the caller to come again later.

    Raises:
        StoreUnavailable: the body raised an OSError.
    """
    try:
        yield
    except StoreUnavailable:
        raise
    except OSError as error:
        kind = DiskFull if error.errno in _NO_ROOM else StoreUnavailable
        raise kind(f"the gateway's state directory cannot be written: {error.strerror or error}") from error


def failure_of(error: BaseException) -> Failure:
    """What the record says about an error that ended a model request."""
    match error:
        case AnswerTooLarge():
            return Failure(f"over_{error.bound}")
        case EngineError():
            return Failure(error.code, error.http_status)
        case GatewayError():
            return Failure(error.code)
        case asyncio.CancelledError():
            return CANCELLED
        case _:
            return INTERNAL
