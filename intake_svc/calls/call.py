"""A call that is told of before it ends, and what it is known by."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from math import inf
from typing import Generic, TypeVar

from onrecord.audit.v1 import audit_pb2

SLACK_MS = 2_000
"""How far apart the clocks of two accounts of one call may be, where nothing but times tells that it is one."""
SIZES = '{"$arguments": '
"""How the summary of arguments begins of which a hook's kept event has the number and the size alone."""
_T = TypeVar("_T")
NEVER_ENDED = "the agent never said how the call ended"


@dataclass(slots=True)
class Call:
    """A call that is not in the spool yet."""

    row: audit_pb2.AuditRow
    key: str
    """What it is known by; empty where the agent gives calls no ids."""
    due: float
    """When it goes to the spool as it is, by time.monotonic()."""
    why: str = NEVER_ENDED
    """Said where nobody has told how it ended."""
    has_ended: bool = False
    told: list[str] = field(default_factory=list)
    """What would tell of it again: keys of hooks' events, ids of rows of telemetry."""


def key_of(row: audit_pb2.AuditRow) -> str:
    """What a row's call is known by among those of its caller; empty where it has no id."""
    if not (row.provider_call_id and row.session_id):
        return ""
    return _digest(row.principal, row.engine, row.session_id, row.provider_call_id)


def event_key(principal: str, event_id: str) -> str:
    """What a hook's event is known by among those of its caller; empty where it has no id."""
    return _digest("event", principal, event_id) if event_id else ""


def row_id(key: str, at_ms: int) -> str:
    """The id of the row of a call that is known by its key and began then: a UUID of version 8, the time first."""
    digits = f"{at_ms:012x}" + sha256(f"{key} {at_ms}".encode()).hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-8{digits[12:15]}-8{digits[15:18]}-{digits[18:30]}"


def began_ms(id_: str) -> int:
    """When the call of a row with such an id began, or with a UUIDv7, as rows of telemetry have."""
    return int(id_[:8] + id_[9:13], 16)


def is_of_hooks(id_: str) -> bool:
    """Whether an id is of row_id(): the call's hook told when it began."""
    return id_[14:15] == "8"


def is_told_by(id_: str, row: audit_pb2.AuditRow) -> bool:
    """Whether a row of telemetry is of the call of such a row, whose key it has, and not of a later one of that id."""
    return is_of_hooks(id_) or row.created_at_ms <= began_ms(id_) + SLACK_MS


def may_begin(id_: str, began_at_ms: int, at_ms: int) -> bool:
    """Whether a hook that was called at at_ms may have told that the call of such a row begins.

    Of an earlier or later time it tells of another call, to which the agent gave the same id. Where no hook told of the
    beginning, the row has the time of the run, which may be long after the hook: a person was asked.
    """
    return at_ms <= began_at_ms + SLACK_MS and (not is_of_hooks(id_) or at_ms >= began_at_ms - SLACK_MS)


def session_of(row: audit_pb2.AuditRow) -> tuple[str, str, str]:
    """The session of a row, among those of all callers."""
    return row.principal, row.engine, row.session_id


def may_be_alike(one: audit_pb2.AuditRow, other: audit_pb2.AuditRow) -> bool:
    """Whether two rows may have the same arguments.

    Not where digests under one key tell them apart, or the sizes with which two hooks' events were kept.
    """
    if one.args_summary.startswith(SIZES) and other.args_summary.startswith(SIZES):
        return one.args_summary == other.args_summary
    by_one, by_other = one.args_digest, other.args_digest
    comparable = by_one.hmac_sha256 and by_other.hmac_sha256 and by_one.key_id == by_other.key_id
    return not comparable or by_one.hmac_sha256 == by_other.hmac_sha256


class ByTool(Generic[_T]):
    """What is of calls without an id, by session and tool: only these need be told apart by times."""

    def __init__(self, most: float = inf) -> None:
        """most: of how many calls; the oldest is forgotten for one more."""
        self._most = most
        self._found: dict[tuple[str, ...], dict[str, _T]] = {}
        self._tools: dict[str, tuple[str, ...]] = {}
        """Of each call by the id of its row; the oldest first."""

    def add(self, row: audit_pb2.AuditRow, value: _T) -> str:
        """Adds a call's, or puts it in the place of what has the id of its row.

        Returns: the id of the one that is forgotten; empty for none.
        """
        tool = self._tools.setdefault(row.id, _tool_of(row))
        self._found.setdefault(tool, {})[row.id] = value
        if len(self._tools) <= self._most:
            return ""
        oldest = next(iter(self._tools))
        self.remove(oldest)
        return oldest

    def remove(self, id_: str) -> None:
        """Takes away what has the id, if there is something."""
        if (tool := self._tools.pop(id_, None)) is not None:
            alike = self._found[tool]
            del alike[id_]
            if not alike:
                del self._found[tool]

    def like(self, row: audit_pb2.AuditRow) -> Iterable[_T]:
        """Those of a row's session and tool, in the order in which they were added."""
        return self._found.get(_tool_of(row), {}).values()


def _tool_of(row: audit_pb2.AuditRow) -> tuple[str, ...]:
    return *session_of(row), row.tool_name


def overlap(by_hook: audit_pb2.AuditRow, row: audit_pb2.AuditRow) -> bool:
    """Whether a row of telemetry may be of a call of its session and tool without an id, by their times."""
    began, ended = by_hook.created_at_ms - SLACK_MS, by_hook.created_at_ms + by_hook.duration_ms + SLACK_MS
    if not by_hook.outcome:  # it runs
        ended = row.created_at_ms
    return row.created_at_ms + row.duration_ms >= began and row.created_at_ms <= ended


def _digest(*said: str) -> str:
    return sha256("\0".join(said).encode()).hexdigest()[:32]
