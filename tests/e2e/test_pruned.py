"""A gateway whose rows come late: the ledger has been pruned past them."""

from pathlib import Path

import pytest

from audit_svc.sqlite.open.connection import open_for_reading
from recording.delivery.connection import Target
from recording.delivery.sender import Sender
from tests.audit_svc.aged import ago, make_ledger
from tests.audit_svc.test_process import run, serve
from tests.recording.samples import opened, tool_call


@pytest.mark.long
async def test_a_row_that_comes_after_its_time_was_pruned_is_kept_and_marked(tmp_path: Path) -> None:
    database = tmp_path / "audit.db"
    make_ledger(database, hours=5)
    assert run(database, "prune", "--before", "3h").returncode == 0
    with opened(tmp_path) as spool, serve(database) as service:
        for number, hours in ((1, 4), (2, 1)):
            spool.append(tool_call(number, created_at_ms=ago(hours)))
        sender = Sender(spool, Target(service.address))
        sender.start()
        try:
            assert await sender.drain(60)
        finally:
            await sender.aclose()
        service.terminate()
    connection = open_for_reading(database)
    sent = "SELECT id, clock_suspect IS NOT NULL FROM tool_call_log WHERE id IN ('call-1', 'call-2') ORDER BY id"
    assert connection.execute(sent).fetchall() == [("call-1", 1), ("call-2", 0)]
    connection.close()
