"""A gateway whose rows come too late: the ledger has been pruned past them."""

from pathlib import Path

from recording.delivery.connection import Target
from recording.delivery.sender import Sender
from tests.audit_svc.aged import ago, make_ledger
from tests.audit_svc.test_process import found, run, serve
from tests.recording.samples import opened, tool_call
from tests.recording.test_verdicts import dead_letters


async def test_a_row_that_is_too_old_becomes_a_dead_letter_with_its_reason_and_holds_nothing_up(tmp_path: Path) -> None:
    database = tmp_path / "audit.db"
    make_ledger(database, hours=5)
    assert run(database, "prune", "--before", "3h").returncode == 0
    with opened(tmp_path) as spool, serve(database) as service:
        for number, hours in ((1, 4), (2, 1)):
            spool.append(tool_call(number, created_at_ms=ago(hours)))
        sender = Sender(spool, Target(service.address))
        sender.start()
        try:
            assert await sender.drain(20)
        finally:
            await sender.aclose()
        service.terminate()
        (letter,) = dead_letters(tmp_path, spool)
    assert (letter["code"], letter["row"]["id"]) == ("TOO_OLD", "call-1")
    assert "pruned" in letter["message"]
    assert {"call-2"} == set(found(database)) & {"call-1", "call-2"}
