"""Tool calls, their results and token usage, as a producer describes them before they become rows.

Nobody changes them. Those that each row has of its own are not frozen: that would double the time it takes to make one.
"""

import re
from dataclasses import dataclass

from onrecord.common.v1 import common_pb2

STOP_RULE = "stop:"
"""Begins Decision.rule of a call that a stop refused; the stop's id follows. No rule of a file can have such a name."""
GATEWAY_ENDED = "the gateway was ended during the call"
"""The error of a call that was cancelled since its gateway was told to end."""
UNKNOWN_TOOL = "unknown"
"""What the record calls every tool that was not offered: its name would be a model's own words."""


@dataclass(slots=True)
class Scope:
    """What a tool call belongs to: the fields of an audit row that are not the call's own."""

    session_id: str
    engine: str
    model: str = ""
    turn_id: str = ""
    trace_id: str = ""
    """The W3C trace that the turn belongs to: 32 lower-case hexadecimal digits, or empty."""
    principal: str = ""
    """The name of the caller that was authenticated for the turn; empty where there is none."""
    on_behalf_of: str = ""
    """For whom the client says that it acts: a claim."""
    agent: tuple[str, str] = ("", "")
    """Name and version of the agent, as the client or the engine says."""
    source: common_pb2.Source.ValueType = common_pb2.SOURCE_OWN_LOOP
    """By what way the rows are recorded."""
    parent_turn_id: str = ""
    """The turn whose tool call began this turn, as the client says."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Why a tool call runs or does not."""

    source: common_pb2.DecisionSource.ValueType
    """What decided."""
    verdict: common_pb2.Verdict.ValueType = common_pb2.VERDICT_UNSPECIFIED
    """Unset when nothing decided."""
    rule: str = ""
    """The name of the rule that decided."""
    policy_digest: str = ""
    """Which rules were in force."""
    reason: str = ""
    """Why, in the words of the rule or of who answered."""
    decided_by: str = ""
    """The authenticated name of who answered, or made the stop that refused the call."""
    decided_at_ms: int = 0
    """When somebody answered, in milliseconds since 1970-01-01 UTC; 0 where nobody did."""
    waited_ms: int = 0
    """How long the call waited for an answer."""


UNDECIDED = Decision(common_pb2.DECISION_SOURCE_NONE)
"""Of the call of a shadow, or one that never came so far."""
ALLOWED = Decision(common_pb2.DECISION_SOURCE_CONFIGURATION, common_pb2.VERDICT_ALLOWED)
"""Nothing forbids the call."""
AGENT_OWN = Decision(common_pb2.DECISION_SOURCE_AGENT_OWN, common_pb2.VERDICT_ALLOWED)
"""The agent or the application decided by itself."""
NOT_RECORDED = Decision(common_pb2.DECISION_SOURCE_CONFIGURATION, common_pb2.VERDICT_DENIED, rule="audit_strict")
"""Of a call that did not run since it could not be recorded."""


@dataclass(slots=True)
class ToolCall:
    """A model's request to run a tool."""

    id: str
    """The id of the audit row: a UUIDv7 of our own, since a model server's ids may be missing or repeat."""
    provider_call_id: str
    """The model server's id, which its protocol wants back with the result; generated if the server sent none."""
    name: str
    """The tool's name as the model wrote it."""
    arguments: str
    """The arguments as the model wrote them: JSON text, which may be malformed."""


@dataclass(slots=True)
class ToolResult:
    """How a tool call ended."""

    text: str
    """The result as the model sees it."""
    outcome: common_pb2.Outcome.ValueType = common_pb2.OUTCOME_SUCCEEDED
    error: str | None = None
    """Why the tool failed: a sentence of our own for the record. It quotes no content, no argument value and nobody
    else's words; those go into `text`."""
    exit_code: int | None = None
    http_status: int | None = None
    result_bytes: int | None = 0
    """The size of the whole result in bytes, before truncation; None where it is not known."""
    result_truncated: bool = False
    rule: str = ""
    """The name of the rule or confinement that refused the call, where its tool did: with OUTCOME_DENIED."""
    started_at_ms: int = 0
    """When the call began, in milliseconds since 1970-01-01 UTC; set by run()."""
    duration_ms: int = 0
    """How long the call took, by a monotonic clock; set by run()."""


@dataclass(slots=True)
class Usage:
    """Tokens of one model request."""

    input_tokens: int = 0
    """Tokens read, including those from a cache."""
    output_tokens: int = 0
    """Tokens written, including reasoning."""
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0
    cache_write_input_tokens: int = 0
    """Tokens read that were written to a cache, which some providers charge more for."""
    complete: bool = True
    """False when the answer was cut off or the server sent no usage, so the counts are too low."""


_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a model request failed, in a form that may be recorded: no word comes from a server, a model or a caller."""

    code: str
    """From the producer's closed list, in snake_case."""
    http_status: int | None = None
    """The server's status, if it answered."""

    def __str__(self) -> str:
        """The text in the cost row. Anything that is not a code, such as a sentence, becomes `unknown`."""
        code = self.code if _CODE.fullmatch(self.code) else "unknown"
        return code if self.http_status is None else f"{code}, HTTP {self.http_status:d}"
