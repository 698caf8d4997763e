"""Whatever is sent again, in whatever batches: the ledger has each row once, as it came first."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onrecord.audit.v1 import audit_pb2, questions_pb2

from audit_svc.ledger.usage import Usage
from audit_svc.sqlite.write.inserts import Inserts
from tests.audit_svc import asking
from tests.audit_svc.empty import empty_in_memory
from tests.audit_svc.samples import audit_row, batch, row_of

rows = st.builds(
    audit_row,
    id=st.sampled_from(["a", "b", "c", "d", ""]),
    duration_ms=st.integers(0, 2),
)


@pytest.mark.long
@settings(deadline=None)
@given(st.lists(st.lists(rows, max_size=8), max_size=8))
def test_the_first_content_of_an_id_stays_and_every_row_is_accounted_for(batches):
    connection = empty_in_memory()
    inserts = Inserts(connection)
    kept: dict[str, audit_pb2.AuditRow] = {}
    for sent in batches:
        stored = duplicates = 0
        rejected = []
        for row in sent:
            if not row.id:
                rejected.append((row.id, audit_pb2.REJECTION_CODE_INVALID))
            elif row.id not in kept:
                kept[row.id] = row
                stored += 1
            elif kept[row.id] == row:
                duplicates += 1
            else:
                rejected.append((row.id, audit_pb2.REJECTION_CODE_CONFLICT))
        (response,) = inserts.write([(batch(*sent), Usage())], 1)
        assert (response.stored, response.duplicates) == (stored, duplicates)
        assert [(one.id, one.code) for one in response.rejections] == rejected
    found = asking.list_tool_calls(connection, questions_pb2.ListToolCallsRequest(page_size=1000)).tool_calls
    assert {row.id: row for row in map(row_of, found)} == kept
    assert len(found) == len(kept)


def test_of_many_rows_that_come_again_those_with_other_content_are_told():
    inserts = Inserts(empty_in_memory())
    sent = [audit_row(id=f"row {number}", exit_code=None) for number in range(400)]
    sent[300].agent.name = "reviewer"
    inserts.write([(batch(*sent), Usage())], 1)
    (response,) = inserts.write([(batch(*sent), Usage())], 1)
    assert (response.stored, response.duplicates) == (0, 400)
    assert not response.rejections
    sent[7].exit_code = 0
    sent[160].tool_name = "read"
    sent[300].ClearField("agent")
    sent[399].error = "failed"
    sent.append(audit_row(id="new"))
    (response,) = inserts.write([(batch(*sent), Usage())], 1)
    assert (response.stored, response.duplicates) == (1, 396)
    assert [one.id for one in response.rejections] == ["row 7", "row 160", "row 300", "row 399"]
