"""What rules would have said of calls on the record, as far as the record tells: it holds no arguments."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from service_kit.rules.facts import Facts, Unevaluable
from service_kit.rules.policy import Policy

RAN = frozenset({common_pb2.OUTCOME_SUCCEEDED, common_pb2.OUTCOME_FAILED, common_pb2.OUTCOME_TIMED_OUT})
"""Outcomes of calls whose tool ran to an end."""


@dataclass(slots=True)
class RuleTrial:
    """What one rule would have decided."""

    calls: int = 0
    ran: int = 0
    """Those of them whose tool ran."""
    undecided: int = 0
    """Calls that reached it and could not be told without what the record does not have."""


@dataclass(slots=True)
class Trial:
    """What rules would have said of recorded calls."""

    policy: Policy
    calls: int = 0
    by_default: int = 0
    """Calls that no rule is about."""
    by_rule: dict[str, RuleTrial] = field(default_factory=dict)
    tools_undecided: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        """Every rule has its line, also one that no call reaches."""
        self.by_rule = {rule.name: RuleTrial() for rule in self.policy.rules}

    def add(self, call: audit_pb2.AuditRow, labels: Mapping[str, str] | None) -> None:
        """Takes a recorded call, with the labels of its session if they are known."""
        self.calls += 1
        says_who = call.decision.source != common_pb2.DECISION_SOURCE_UNSPECIFIED  # older rows do not
        facts = Facts(
            call.tool_name,
            args=None,
            principal=call.principal if says_who else None,
            labels=labels,
            agent={"name": call.agent.name, "version": call.agent.version} if says_who else None,
            engine=call.engine,
            model=call.model,
            session=call.session_id,
        )
        for rule, condition in self.policy.about(call.tool_name):
            trial = self.by_rule[rule.name]
            try:
                holds = condition is None or condition.holds(facts)
            except Unevaluable:
                trial.undecided += 1
                self.tools_undecided[call.tool_name] += 1
                return
            if holds:
                trial.calls += 1
                trial.ran += call.outcome in RAN
                return
        self.by_default += 1
