"""What a stop holds for, and what it says of the calls that it refuses: alike wherever stops apply."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import control_pb2 as pb

from recording.calls import STOP_RULE, Decision


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


def decision(stop: pb.Stop) -> Decision:
    """Of a call that a stop refused."""
    source, verdict = common_pb2.DECISION_SOURCE_RULE, common_pb2.VERDICT_DENIED
    return Decision(source, verdict, rule=f"{STOP_RULE}{stop.id}", reason=stop.reason, decided_by=stop.principal)


def what_lifts(stop_id: str) -> str:
    """The command that lifts a stop, as the end of a sentence for people."""
    return f'`gateway-svc resume {stop_id} --reason "…"` lifts it'


def why_denied(stop: pb.Stop) -> str:
    """The error of a call that a stop refused: what is stopped, by whom, and what lifts it. Its decision says why."""
    by = stop.principal or "an administrator"
    return f"{by} has stopped {scope_text(stop.scope)} (stop {stop.id}): {what_lifts(stop.id)}"


def told(stop: pb.Stop) -> str:
    """What a model is told of a call that a stop refused."""
    what = "tool" if stop.scope.HasField("tool") else "agent"
    return f"An administrator has stopped this {what} (stop {stop.id}): {stop.reason}"
