"""Decisions about calls, as agents tell of them."""

from onrecord.common.v1 import common_pb2

from recording.calls import Decision

_VERDICTS = {True: common_pb2.VERDICT_ALLOWED, False: common_pb2.VERDICT_DENIED, None: common_pb2.VERDICT_UNSPECIFIED}
"""Whether a call was allowed; None where the agent says it by a word that we do not know."""


def by_configuration(*, allowed: bool | None) -> Decision:
    """The agent's own settings decided, or nothing forbade the call."""
    return Decision(common_pb2.DECISION_SOURCE_CONFIGURATION, _VERDICTS[allowed])


def by_rule(name: str, *, allowed: bool | None) -> Decision:
    """A rule, a hook or a program decided."""
    return Decision(common_pb2.DECISION_SOURCE_RULE, _VERDICTS[allowed], rule=name)


def by_person(at_ms: int, *, allowed: bool | None) -> Decision:
    """A person decided, at that time in milliseconds since 1970-01-01 UTC."""
    return Decision(common_pb2.DECISION_SOURCE_PERSON, _VERDICTS[allowed], decided_at_ms=at_ms)


def by_agent(*, allowed: bool | None) -> Decision:
    """The agent does not say who decided."""
    return Decision(common_pb2.DECISION_SOURCE_AGENT_OWN, _VERDICTS[allowed])
