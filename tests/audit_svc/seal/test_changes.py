"""Rows that somebody changes, removes or adds by hand are told."""

import random

import pytest
from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from tests.audit_svc.samples import NOW_MS, audit_row
from tests.audit_svc.seal.conftest import Record, Seal, change, rows

TABLES = ("tool_call_log", "cost_log", "session_log")


CHANGES = {
    "a field": "UPDATE {table} SET recorded_by = 'mallory' WHERE position = {at}",
    "a text": "UPDATE tool_call_log SET args_summary = '{{}}' WHERE position = {at}",
    "a salt": "UPDATE tool_call_log SET salt = randomblob(16) WHERE position = {at}",
    "a number": "UPDATE cost_log SET cost_micros = 1 WHERE position = {at}",
    "null": "UPDATE tool_call_log SET exit_code = NULL WHERE position = {at}",
    "a removal": "DELETE FROM {table} WHERE position = {at}",
    "a session": "UPDATE sessions SET turns = turns + 1 WHERE id = 'session-1'",
    "a label": "UPDATE session_labels SET value = 'x' WHERE session_id = 'session-1' AND key = 'team'",
}


@pytest.mark.long
@pytest.mark.parametrize("what", list(CHANGES))
def test_a_change_by_hand_is_told_with_its_place(seal: Seal, record: Record, what: str):
    record(**rows(40))
    seal.run()
    chosen = random.Random(what)
    table, at = chosen.choice(TABLES), chosen.randint(1, 10)
    change(seal.database, CHANGES[what].format(table=table, at=at))
    (problem,) = seal.verify().problems
    assert "session" in problem if what in {"a session", "a label"} else f" {at} " in problem


@pytest.mark.long
@pytest.mark.parametrize("is_labelled", [True, False])
@pytest.mark.parametrize(
    "changed",
    [
        "UPDATE sessions SET tool_calls = 1 WHERE id = 'others'",
        "UPDATE sessions SET revision = 1 WHERE id = 'others'",
        "INSERT INTO session_labels VALUES ('others', '', 'team', 'x')",
        "",
    ],
)
def test_a_session_that_the_ledger_sums_up_is_held_to_its_rows_and_labels(
    seal: Seal, record: Record, changed: str, is_labelled: bool
):
    labelled = audit_pb2.SessionRow(id="others", labels={"branch": "main"}, created_at_ms=NOW_MS, updated_at_ms=NOW_MS)
    record(
        tool_calls=[audit_row(session_id="others", source=common_pb2.SOURCE_OTLP) for _ in range(2)],
        sessions=[labelled] if is_labelled else [],
    )
    seal.run()
    if changed:
        change(seal.database, changed)
    told = [problem for problem in seal.verify().problems if "session 'others'" in problem]
    assert len(told) == bool(changed)


def test_two_rows_that_change_places_are_told(seal: Seal, record: Record):
    record(**rows(8))
    seal.run()
    change(
        seal.database,
        "UPDATE tool_call_log SET position = -1 WHERE position = 3",
        "UPDATE tool_call_log SET position = 3 WHERE position = 4",
        "UPDATE tool_call_log SET position = 4 WHERE position = -1",
    )
    assert len(seal.verify().problems) == 2


def test_a_row_that_is_put_among_sealed_ones_is_told(seal: Seal, record: Record):
    record(**rows(8))
    change(seal.database, "UPDATE tool_call_log SET position = position + 100 WHERE position > 4")
    seal.run()
    assert not seal.verify().problems
    change(
        seal.database,
        "CREATE TABLE x AS SELECT * FROM tool_call_log WHERE position = 1",
        "UPDATE x SET position = 50, id = 'forged'",
        "INSERT INTO tool_call_log SELECT * FROM x",
        "DROP TABLE x",
    )
    assert seal.verify().problems == ["tool_call 50 stands between sealed rows and was never sealed: it was added"]


def test_rows_are_not_compared_with_a_log_that_is_wrong(seal: Seal, record: Record):
    record(**rows(8))
    seal.run()
    assert seal.verify().compared
    for tile in (seal.folder / "tile" / "0").rglob("*"):
        if tile.is_file():
            tile.unlink()
    report = seal.verify()
    assert (report.compared, len(report.problems)) == (False, 1), "that none is as it was sealed is not said"


def test_a_session_that_is_removed_is_told(seal: Seal, record: Record):
    record(**rows(16))
    seal.run()
    change(
        seal.database,
        "DELETE FROM sessions WHERE id = 'session-1'",
        "DELETE FROM session_labels WHERE session_id = 'session-1'",
    )
    assert seal.verify().problems == ["session 'session-1' has sealed revisions and is not there: it was removed"]
