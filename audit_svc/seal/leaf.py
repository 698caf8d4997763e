"""Leaves: what is hashed of a row (docs/seal-format.md). A leaf's form never changes; a new one gets a new version.

A leaf is a JSON object in the form of RFC 8785. The ledger's database makes it from the row in one statement; encode()
makes the same from a row in Python, and checks it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from audit_svc.ledger.erased import ERASED

VERSION = 1
BESIDE = ("salt", "erased")
"""The columns of a kind with hashed texts that are not in the leaf."""


@dataclass(frozen=True, slots=True)
class Kind:
    """The rows of a table that is only added to."""

    name: str
    table: str
    numbers: tuple[str, ...]
    texts: tuple[str, ...]
    hashed: tuple[str, ...] = ()
    """Texts that the leaf has only as a hash with the row's salt, so that they can be removed."""
    column_of: Mapping[str, str] = field(default_factory=dict)
    """The column of a member of the leaf, where it has another name."""

    def column(self, name: str) -> str:
        """The column that a member of the leaf is of."""
        return self.column_of.get(name, name)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are in the leaf."""
        return tuple(map(self.column, (*self.numbers, *self.texts, *self.hashed)))

    def encode(self, row: Mapping[str, Any]) -> bytes:
        """The leaf of a row, as databases make it. row: its columns, and those of BESIDE where it has texts to hash."""
        said: dict[str, str | None] = {"kind": self.name, "v": str(VERSION)}
        for name in self.numbers:
            number = row[self.column(name)]
            said[name] = None if number is None else str(number)
        for name in self.texts:
            said[name] = row[self.column(name)]
        for name in self.hashed:
            if row["erased"] is not None and row[name] == ERASED:
                said[name] = erased_hash(row["erased"], name)
            else:
                said[name] = sealed_text(row["salt"], row[name])
        return canonical(said)


KINDS = (
    Kind(
        "tool_call",
        "tool_call_log",
        numbers=(
            *("position", "recorded_at", "created_at", "duration_ms", "exit_code", "http_status", "result_truncated"),
            *("result_bytes", "redaction_version", "times_observed", "shadow", "clock_suspect", "decided_at"),
            *("waited_ms", "unconfined"),
        ),
        texts=(
            *("id", "recorded_by", "session_id", "turn_id", "engine", "model", "tool_name", "outcome"),
            *("provider_call_id", "trace_id", "principal", "on_behalf_of", "agent", "agent_version", "source"),
            *("parent_turn_id", "mcp_server", "mcp_server_version", "args_digest_key", "args_digest", "verdict"),
            *("decision_source", "decided_by", "rule", "policy_digest"),
        ),
        hashed=("args_summary", "error", "reason"),
    ),
    Kind(
        "model_request",
        "cost_log",
        numbers=(
            *("position", "recorded_at", "created_at", "duration_ms", "input_tokens", "output_tokens"),
            *("cached_input_tokens", "reasoning_tokens", "cost_micros", "usage_incomplete", "context_exceeded"),
            *("shadow", "clock_suspect", "cost_reported"),
        ),
        texts=(
            *("id", "recorded_by", "session_id", "turn_id", "engine", "model", "requested_model", "trace_id"),
            *("principal", "on_behalf_of", "agent", "agent_version", "source", "parent_turn_id"),
        ),
        hashed=("error",),
    ),
    Kind(
        "session",
        "session_log",
        numbers=(
            *("position", "recorded_at", "created_at", "updated_at", "revision", "turns", "tool_calls", "requests"),
            *("input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens", "known_cost_micros"),
            "unpriced_requests",
        ),
        texts=("id", "recorded_by", "engine", "model", "status", "labels"),
    ),
    Kind(
        "control",
        "control_log",
        numbers=("position", "recorded_at", "created_at"),
        texts=("id", "recorded_by", "act", "principal", "scope", "policy_digest", "stop_id"),
        hashed=("reason",),
        column_of={"act": "kind"},
    ),
    Kind(
        "query",
        "query_log",
        numbers=("position", "rows", "duration_ms", "times", "created_at"),
        texts=("caller", "method", "filters", "status"),
        column_of={"position": "id"},
    ),
    Kind(
        "gap",
        "gap_log",
        numbers=("position", "recorded_at", "first_sequence", "last_sequence"),
        texts=("change", "producer_id", "recorded_by"),
    ),
    Kind(
        "removal",
        "removal_log",
        numbers=("position", "recorded_at", "first_position", "last_position", "pruned_before"),
        texts=("removed_kind", "pruned_by"),
    ),
    Kind(
        "erasure",
        "erasure_log",
        numbers=("position", "recorded_at", "first_position", "last_position"),
        texts=("erased_kind", "erased_by", "reason"),
    ),
    Kind(
        "hold",
        "hold_log",
        numbers=("position", "recorded_at"),
        texts=("act", "name", "filter", "acted_by", "reason"),
    ),
)
"""In the order in which a round takes them: a removal, or an erasure, comes behind the rows that it is of."""

HASHED = tuple(kind for kind in KINDS if kind.hashed)
"""The kinds with texts that can be erased."""

BY_NAME = {kind.name: kind for kind in KINDS}


def canonical(said: Mapping[str, Any]) -> bytes:
    """JSON as RFC 8785 has it, of an object whose keys are ASCII and whose values are texts, null, or such objects."""
    return json.dumps(said, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def sealed_text(salt: bytes | None, text: str | None) -> str | None:
    """SHA-256 of salt and text, in hexadecimal. A row of before there were salts has an empty one."""
    return None if text is None else hashlib.sha256((salt or b"") + text.encode()).hexdigest()


def erased_hash(erased: str, name: str) -> str | None:
    """What sealed_text() was of an erased text, by what the row says; None where that is not what erasing writes."""
    try:
        said = json.loads(erased)[name]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return said if isinstance(said, str) else None
