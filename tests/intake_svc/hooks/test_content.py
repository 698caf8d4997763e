"""No field of any event of any agent's hooks lets content through."""

import json
from typing import Any

import pytest

from intake_svc.hooks import rows
from intake_svc.hooks.event import from_line, read_event
from intake_svc.hooks.tables import TABLES, Kind

CANARY = "the canary sang in the mine"

_CASES = [(agent, event) for agent, table in TABLES.items() for event in table.kinds]


def everywhere(agent: str, event: str) -> dict[str, Any]:
    """An event with the canary in each field that is named, and in others."""
    table = TABLES[agent]
    names = [getattr(table, name) for name in table._fields if isinstance(getattr(table, name), str)]
    document: dict[str, Any] = {name: CANARY for name in names if name}
    document |= dict.fromkeys(("prompt", "cwd", "transcript_path", "reason", "last_assistant_message"), CANARY)
    document |= {table.arguments: {"note": CANARY, CANARY: CANARY}, table.event: event}
    if table.result:
        document[table.result] = {"stdout": CANARY, "error": CANARY, "resultType": CANARY}
    return document


@pytest.mark.parametrize(("agent", "event"), _CASES)
def test_rows_and_kept_lines_have_none(agent, event):
    read = read_event(agent, everywhere(agent, event), 1_790_000_000_000, event)
    line = read.to_line()
    assert CANARY not in line
    for told in (read, from_line(line.encode())):
        intent = rows.intent_of(told, "id", "", None)
        shown = [intent] if told.kind is Kind.NOTHING else [intent, rows.ended(intent, told)]
        for row in shown:
            assert CANARY not in str(row)
            assert "canary" not in str(row)


@pytest.mark.parametrize("field", ["session", "turn", "call_id", "tool", "model", "subagent", "arguments", "kind"])
def test_a_line_that_another_program_wrote_is_refused_where_it_may_hold_content(field):
    event = read_event("claude", {"hook_event_name": "PreToolUse", "session_id": "s", "tool_name": "Bash"}, 1)
    said = json.loads(event.to_line()) | {field: CANARY}
    with pytest.raises(ValueError, match="not an event"):
        from_line(json.dumps(said).encode())
