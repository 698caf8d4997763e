"""What a stop may be of, and what those are told that it ends."""

from collections.abc import Collection
from fnmatch import fnmatchcase

from onrecord.gateway.v1 import control_pb2 as pb

from gateway_svc.errors import InvalidRequest, Stopped
from service_kit.printable import printable
from service_kit.producing.stop import scope_text, what_lifts

MAX_REASON_BYTES = 256
_LONGEST = {"principal": 128, "agent": 64, "engine": 64, "tool": 128}
_LONGEST_KEY, _LONGEST_VALUE = 64, 256


def stopped(stop: pb.Stop) -> Stopped:
    """What the caller of a turn is told that a stop refuses or ends."""
    scope = printable(scope_text(stop.scope))
    told = f"stopped by an administrator ({scope}, stop {stop.id}): {stop.reason} ({what_lifts(stop.id)})"
    return Stopped(told, stop.id)


def ended(stop: pb.Stop) -> str:
    """What the record says of a call that ran when a stop came."""
    return f"stopped by {stop.principal or 'an administrator'}: {stop.reason} (stop {stop.id})"


def is_known(
    scope: pb.StopScope, *, engines: Collection[str], tools: Collection[str], servers: Collection[str]
) -> bool:
    """Whether a gateway has the engine or the tool that a scope names; of an MCP server that is down any may be."""
    match scope.WhichOneof("target"):
        case "engine":
            return scope.engine in engines
        case "tool":
            server = scope.tool.partition(".")[0]
            return any(fnmatchcase(name, server) for name in servers) or any(
                fnmatchcase(name, scope.tool) for name in tools
            )
    return True


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
