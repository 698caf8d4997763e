"""What a ledger knows, for a shell that completes: of the service that runs, or of the file where none does."""

import os
from pathlib import Path

from onrecord.audit.v1 import questions_pb2
from onrecord.common.v1 import common_pb2

from audit_svc.terminal.client import all_rows, connect
from audit_svc.terminal.options import Source, time_ms
from service_kit.terminal.command import Exit
from service_kit.terminal.ids import LAST, short_ids

_NEWEST = 50
_SINCE = "30d"


def sessions() -> list[str]:
    """The newest sessions, in short."""
    request = questions_pb2.ListSessionRecordsRequest()
    try:
        with connect(_source()) as client:
            found = all_rows(client, "ListSessionRecords", request, "sessions", _NEWEST)
    except Exit:
        return [LAST]
    return [LAST, *short_ids([record.session.id for record in found]).values()]


def tools() -> list[str]:
    """The tools of the last month."""
    return _values("tool")


def models() -> list[str]:
    """The models of the last month."""
    return _values("model")


def engines() -> list[str]:
    """The engines of the last month."""
    return _values("engine")


def outcomes() -> list[str]:
    """How calls end."""
    return [name.removeprefix("OUTCOME_").lower() for name, number in common_pb2.Outcome.items() if number]


def _values(group: str) -> list[str]:
    since = questions_pb2.ToolCallFilter(created_from_ms=time_ms(_SINCE, "--since"))
    request = questions_pb2.SummarizeUsageRequest(filter=since, group_by=[group])
    try:
        with connect(_source()) as client:
            return [each.values[0] for each in all_rows(client, "SummarizeUsage", request, "groups") if each.values[0]]
    except Exit:
        return []


def _source() -> Source:
    file = os.environ.get("ONRECORD_DB")
    return Source(db=Path(file)) if file else Source()
