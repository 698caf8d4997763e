"""Decisions about calls, as agents tell of them."""

from onrecord.common.v1 import common_pb2

from recording.calls import Decision

_ALLOWED, _DENIED = common_pb2.VERDICT_ALLOWED, common_pb2.VERDICT_DENIED


def by_configuration(*, allowed: bool) -> Decision:
    """The agent's own settings decided, or nothing forbade the call."""
    return Decision(common_pb2.DECISION_SOURCE_CONFIGURATION, _ALLOWED if allowed else _DENIED)


def by_rule(name: str, *, allowed: bool) -> Decision:
    """A rule, a hook or a program decided."""
    return Decision(common_pb2.DECISION_SOURCE_RULE, _ALLOWED if allowed else _DENIED, rule=name)


def by_person(at_ms: int, *, allowed: bool) -> Decision:
    """A person decided, at that time in milliseconds since 1970-01-01 UTC."""
    return Decision(common_pb2.DECISION_SOURCE_PERSON, _ALLOWED if allowed else _DENIED, decided_at_ms=at_ms)


def by_agent(*, allowed: bool) -> Decision:
    """The agent does not say who decided."""
    return Decision(common_pb2.DECISION_SOURCE_AGENT_OWN, _ALLOWED if allowed else _DENIED)
