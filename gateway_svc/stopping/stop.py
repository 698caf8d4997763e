"""A stop, and what it holds for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import control_pb2 as pb

from gateway_svc.errors import InvalidRequest, Stopped
from recording.calls import Decision
from service_kit.printable import printable

MAX_REASON_BYTES = 256
RULE = "stop:"
"""Begins Decision.rule of a call that a stop refused; the stop's id follows. No rule of a file can have such a name."""
_LONGEST = {"principal": 128, "agent": 64, "engine": 64, "tool": 128}
_LONGEST_KEY, _LONGEST_VALUE = 64, 256


@dataclass(frozen=True, slots=True)
class Subject:
    """What a turn is of."""

    principal: str = ""
    """The caller that began it; empty where callers have no names."""
    agent: str = ""
    engine: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Its session's."""


def holds_for(stop: pb.Stop, subject: Subject) -> bool:
    """Whether a stop is of all that the subject does. One of tools is of no turn."""
    match stop.scope.WhichOneof("target"):
        case "everything":
            return True
        case "principal":
            return stop.scope.principal == subject.principal
        case "agent":
            return stop.scope.agent == subject.agent
        case "engine":
            return stop.scope.engine == subject.engine
        case "label":
            return subject.labels.get(stop.scope.label.key) == stop.scope.label.value
    return False


def holds_for_tool(stop: pb.Stop, tool: str) -> bool:
    """Whether a stop is of the calls of a tool."""
    return stop.scope.WhichOneof("target") == "tool" and fnmatchcase(tool, stop.scope.tool)


def scope_text(scope: pb.StopScope) -> str:
    """A scope for people and the record: everything, or a condition such as engine=ollama."""
    match scope.WhichOneof("target"):
        case None | "everything":
            return "everything"
        case "label":
            return f"label:{scope.label.key}={scope.label.value}"
        case target:
            return f"{target}={getattr(scope, target)}"


def stopped(stop: pb.Stop) -> Stopped:
    """What the caller of a turn is told that a stop refuses or ends."""
    scope = printable(scope_text(stop.scope))
    return Stopped(f"stopped by an administrator ({scope}, stop {stop.id}): {stop.reason}", stop.id)


def decision(stop: pb.Stop) -> Decision:
    """Of a call that a stop refused."""
    source, verdict = common_pb2.DECISION_SOURCE_RULE, common_pb2.VERDICT_DENIED
    return Decision(source, verdict, rule=f"{RULE}{stop.id}", reason=stop.reason)


def told(stop: pb.Stop) -> str:
    """What a model is told of a call that a stop refused."""
    what = "tool" if stop.scope.HasField("tool") else "agent"
    return f"An administrator has stopped this {what} (stop {stop.id}): {stop.reason}"


def ended(stop: pb.Stop) -> str:
    """What the record says of a call that ran when a stop came."""
    return f"the stop {stop.id} ended the call"


def check_scope(scope: pb.StopScope) -> None:
    """Looks whether a scope can be one.

    Raises:
        InvalidRequest: it names nothing, or a name is empty or too long.
    """
    match scope.WhichOneof("target"):
        case None:
            raise InvalidRequest("scope has no target: name what is stopped, or everything", "scope.target")
        case "everything":
            pass
        case "label":
            _check_length(scope.label.key, "scope.label.key", _LONGEST_KEY)
            if len(scope.label.value) > _LONGEST_VALUE:
                raise InvalidRequest(
                    f"scope.label.value has more than {_LONGEST_VALUE} characters", "scope.label.value"
                )
        case target:
            _check_length(getattr(scope, target), f"scope.{target}", _LONGEST[target])


def check_reason(reason: str) -> None:
    """Looks whether a reason can be one.

    Raises:
        InvalidRequest: it is empty or too long.
    """
    if not reason.strip():
        raise InvalidRequest("reason is empty: say why, for those who read the record", "reason")
    if len(reason.encode(errors="replace")) > MAX_REASON_BYTES:
        raise InvalidRequest(f"reason is longer than {MAX_REASON_BYTES} bytes", "reason")


def _check_length(text: str, path: str, longest: int) -> None:
    if not text:
        raise InvalidRequest(f"{path} is empty: name what is stopped", path)
    if len(text) > longest:
        raise InvalidRequest(f"{path} has more than {longest} characters", path)
