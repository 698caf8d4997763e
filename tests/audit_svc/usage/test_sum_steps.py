"""How many rows a step takes that adds to the sums of sessions: a batch that comes meanwhile waits for it."""

from itertools import pairwise

import pytest

from audit_svc.ledger.batch import read_batch
from audit_svc.ledger.usage import Usage
from audit_svc.sql.usage import session_recount
from audit_svc.sql.usage.session_recount import ROWS_A_STEP
from audit_svc.sql.usage.session_usage import LEAST_ROWS, rows_next, summed_of
from audit_svc.sqlite.usage.session_sums import sum_sessions
from audit_svc.sqlite.write.inserts import Inserts
from tests.audit_svc.empty import empty_in_memory
from tests.audit_svc.samples import NOW_MS, audit_row, record_request


@pytest.mark.parametrize(("seconds", "rows"), [(0.0, LEAST_ROWS), (1e9, ROWS_A_STEP)])
def test_a_step_takes_the_rows_for_which_there_is_time(monkeypatch, seconds, rows):
    monkeypatch.setattr(session_recount, "STEP_SECONDS", seconds)
    connection = empty_in_memory()
    sent = record_request(tool_calls=[audit_row(id=str(number)) for number in range(LEAST_ROWS + 2 * ROWS_A_STEP)])
    batch = read_batch(sent, NOW_MS)
    Inserts(connection).write([(batch, Usage(batch.tool_calls, batch.model_requests))], NOW_MS)
    summed = [0, *(summed_of(connection)["tool_calls"] for _ in sum_sessions(connection))]
    assert summed[-1] == len(batch)
    taken = [last - first for first, last in pairwise(summed) if last > first]
    assert taken == [LEAST_ROWS, *[rows] * (2 * ROWS_A_STEP // rows)]


def test_the_time_of_a_step_tells_how_many_rows_the_next_takes():
    assert rows_next(200, took=0.03, wanted=0.015, most=250) == 100
