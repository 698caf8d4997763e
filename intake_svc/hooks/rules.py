"""Rules on the arguments of calls that hooks tell of: those that came with the hook, and those of the door."""

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from onrecord.common.v1 import common_pb2

from intake_svc.hooks.answers import question, refusal
from intake_svc.hooks.event import HookEvent
from recording.calls import Decision
from recording.channel.watched import WrongFile
from service_kit.rules.file import load_policy

if TYPE_CHECKING:  # the library of conditions is loaded by who has rules
    from service_kit.rules.policy import Matched, Policy

log = structlog.get_logger(__name__)

UNUSABLE = "rules_unusable"
"""The rule of a call that is refused since the rules that came with it cannot be used."""


def decide(
    content: bytes, event: HookEvent, principal: str, *, is_strict: bool
) -> tuple[Decision | None, dict[str, Any] | None]:
    """What a file of rules says of a call: the decision for its row, and the agent's answer; None for neither.

    Args:
        content: the file's.
        event: of a tool that is about to run.
        principal: the authenticated name of the caller.
        is_strict: whether the call is refused when the rules cannot be used; else it goes on, and the log says so.
    """
    try:
        policy = _policy(hashlib.sha256(content).hexdigest(), content)
    except WrongFile as error:
        log.error("hooks.rules_unusable", reason=str(error))
        if not is_strict:
            return None, None
        source, denied = common_pb2.DECISION_SOURCE_RULE, common_pb2.VERDICT_DENIED
        return Decision(source, denied, rule=UNUSABLE), refusal(event.agent, f"The rules cannot be used: {error}")
    found = policy.decide(_facts(event, principal))
    if found is None:
        return None, None
    return _decision(found, can_ask=event.table.asks), _answer(event.agent, found)


def _facts(event: HookEvent, principal: str) -> Any:
    from service_kit.rules.facts import Facts

    try:
        arguments = json.loads(event.arguments or "{}")
    except (ValueError, RecursionError):
        arguments = None
    return Facts(
        event.tool,
        arguments if isinstance(arguments, dict) else None,
        principal,
        event.labels,
        {"name": event.table.agent, "version": event.version},
        event.agent,
        event.model,
        event.session,
    )


def _decision(found: "Matched", *, can_ask: bool) -> Decision:
    """As the gateway has it: a person decides on what a rule asks, and until then nobody has."""
    asks = found.verdict == "ask" and can_ask
    return Decision(
        common_pb2.DECISION_SOURCE_PERSON if asks else common_pb2.DECISION_SOURCE_RULE,
        common_pb2.VERDICT_UNSPECIFIED
        if asks
        else common_pb2.VERDICT_ALLOWED
        if found.verdict == "allow"
        else common_pb2.VERDICT_DENIED,
        rule=found.rule,
        policy_digest=found.policy_digest,
        reason=found.reason,
    )


def _answer(agent: str, found: "Matched") -> dict[str, Any] | None:
    """An `allow` says nothing: what the agent's own settings ask or deny stays asked or denied."""
    reason = found.reason or f"The rule {found.rule} says so."
    if found.verdict == "deny":
        return refusal(agent, reason)
    return question(agent, reason) if found.verdict == "ask" else None


@lru_cache(maxsize=16)
def _policy(_digest: str, content: bytes) -> "Policy":
    return load_policy(Path("--rules"), [content])
