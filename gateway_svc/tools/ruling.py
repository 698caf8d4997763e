"""What is decided on a call before it runs: by the policy of its tool, and by rules on its arguments."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, Protocol

from onrecord.common.v1 import common_pb2

from gateway_svc.tools.arguments import ArgumentsError, parse_object
from recording.calls import ALLOWED, Decision, Scope, ToolCall
from service_kit.rules.facts import Facts

Policy = Literal["allow", "deny", "ask"]
"""Whether a tool runs at once, never, or once the client has agreed."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """What is decided on a call before it runs."""

    policy: Policy
    decision: Decision
    """What the record says of it; of `ask`, until somebody has answered."""
    told: str = ""
    """What the model is told of a call that a rule denied; empty for others: run() knows what their policies deny."""
    error: str = ""
    """What the record says of a call that a stop denied; empty for others."""


class Matched(Protocol):
    """A rule that holds for a call."""

    @property
    def verdict(self) -> Policy:
        """What it says."""
        ...

    @property
    def rule(self) -> str:
        """Its name."""
        ...

    @property
    def reason(self) -> str:
        """Why it says so, for the model and the record."""
        ...


class ArgumentRules(Protocol):
    """Rules on arguments."""

    def decide(self, facts: Facts) -> tuple[Matched | None, str]:
        """The first rule that holds for a call, and the digest of the rules in force."""
        ...


BY_POLICY: Mapping[Policy, Ruling] = {
    "allow": Ruling("allow", ALLOWED),
    "deny": Ruling("deny", replace(ALLOWED, verdict=common_pb2.VERDICT_DENIED, rule="tool_policy")),
    "ask": Ruling("ask", Decision(common_pb2.DECISION_SOURCE_PERSON)),
}
UNCONFINED = Ruling("allow", replace(ALLOWED, rule="unconfined"))
_VERDICTS = {"allow": common_pb2.VERDICT_ALLOWED, "deny": common_pb2.VERDICT_DENIED}


def rule_on_arguments(
    rules: ArgumentRules, call: ToolCall, scope: Scope, labels: Mapping[str, str], by_policy: Ruling
) -> Ruling:
    """What rules decide on a call; by_policy where none holds, or where its arguments cannot be read."""
    try:
        args = parse_object(call.arguments)
    except ArgumentsError:
        return by_policy
    name, version = scope.agent
    agent = {"name": name, "version": version}
    facts = Facts(call.name, args, scope.principal, labels, agent, scope.engine, scope.model, scope.session_id)
    matched, digest = rules.decide(facts)
    if matched is None or by_policy.policy == "deny":
        return _under(by_policy.policy, digest, unconfined=by_policy is UNCONFINED)
    return _ruled(matched.verdict, matched.rule, matched.reason, digest)


@lru_cache(maxsize=16)
def _under(policy: Policy, digest: str, *, unconfined: bool) -> Ruling:
    by_policy = UNCONFINED if unconfined else BY_POLICY[policy]
    return replace(by_policy, decision=replace(by_policy.decision, policy_digest=digest))


@lru_cache(maxsize=256)
def _ruled(verdict: Policy, rule: str, reason: str, digest: str) -> Ruling:
    source = common_pb2.DECISION_SOURCE_PERSON if verdict == "ask" else common_pb2.DECISION_SOURCE_RULE
    decided = _VERDICTS.get(verdict, common_pb2.VERDICT_UNSPECIFIED)
    told = (reason or f"The rule {rule} does not allow this call.") if verdict == "deny" else ""
    return Ruling(verdict, Decision(source, decided, rule=rule, policy_digest=digest, reason=reason), told)
