"""`audit-svc producers` and `check`: what never came, and what was refused."""

import json

import pytest

from audit_svc.ledger.batch import read_batch
from audit_svc.sqlite.care.check import check
from tests.audit_svc.samples import NOW_MS, audit_row, request
from tests.audit_svc.test_process import run


@pytest.mark.long
def test_what_never_came_and_what_was_refused_is_told_of_each_producer(writer, database):
    for number in (1, 2, 5):
        sent = request(audit_row(), audit_row(id=""), producer_id="gateway-1", last=number)
        writer.record(read_batch(sent, NOW_MS)).result()
    writer.record(read_batch(request(audit_row(tool_name="x" * 129)), NOW_MS)).result()
    writer.close()
    told = run(database, "producers", "--json")
    assert told.returncode == 0, told.stderr
    found = {row["id"]: row for row in map(json.loads, told.stdout.splitlines())}
    one = found["gateway-1"]
    assert (one["highest_sequence"], one["missing"], one["refused"], one["reasons"]) == (5, 2, 3, "invalid")
    assert (found[""]["refused"], found[""]["reasons"]) == (1, "too_large")
    assert "gateway-1" in run(database, "producers").stdout
    notes = [finding.detail for finding in check(database, lambda *_: None) if finding.state == "note"]
    assert any("gateway-1: records 1 to 5: rows refused as invalid: 3" in note for note in notes)
    assert any("without numbers: rows refused as too_large: 1" in note for note in notes)
