"""What `agentmesh.governance.approval_protocol` says of approvals; runs in the judges' own environment.

Reads cases as JSON on stdin: what was approved, what is to run and what has changed since. Writes the reason of each.
"""

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from agentmesh.governance.approval_protocol import (
    ActionBinding,
    ActionTarget,
    ApprovalChain,
    ApprovalCoordinator,
    ApprovalStage,
    ApproverKind,
    EntryDecision,
    InMemoryApprovalStore,
)

CHAIN = ApprovalChain("tools", "1", (ApprovalStage(0, allowed_identities=frozenset({"bob"})),))
TTL_SECONDS = 60


def judge(case: Mapping[str, Any]) -> str:
    now = datetime.now(UTC)
    coordinator = ApprovalCoordinator(InMemoryApprovalStore(), {CHAIN.chain_id: CHAIN}, lambda: now)
    approved, run = bind(case["approved"]), bind(case["run"])
    _, request = coordinator.open_request(
        approved, policy_rule_id="ask", policy_version="1", chain_id=CHAIN.chain_id, ttl_seconds=TTL_SECONDS
    )
    request_id = request.approval_request_id
    coordinator.submit_entry(
        request_id,
        stage_index=0,
        approver_kind=ApproverKind.HUMAN,
        approver_identity="bob",
        identity_assurance="token",
        decision=EntryDecision.ALLOW,
    )
    now += timedelta(seconds=TTL_SECONDS + 1 if case.get("late") else 0)
    for _ in range(case.get("times", 1)):
        verdict = coordinator.validate_for_execution(
            request_id,
            current_action_digest=run.digest(),
            current_policy_version="2" if case.get("rules_changed") else "1",
            current_chain_version=CHAIN.version,
        )
    return str(verdict.reason_code)


def bind(call: Mapping[str, Any]) -> ActionBinding:
    return ActionBinding("tool.invoke", "helper", ActionTarget(call["tool"], "1"), call["arguments"], subject_id="ada")


if __name__ == "__main__":
    json.dump({name: judge(case) for name, case in json.load(sys.stdin).items()}, sys.stdout)
