"""When the index of texts is worked on while rows keep coming."""

import time

import apsw
import pytest

from audit_svc.ledger import idle
from audit_svc.sqlite.open import migrate
from audit_svc.sqlite.text.indexer import Indexer


@pytest.mark.parametrize("is_busy", [False, True])
def test_a_writer_that_commits_most_of_its_time_is_seldom_kept_from_it(monkeypatch, is_busy):
    monkeypatch.setattr(idle, "QUIET_SECONDS", 60.0)
    monkeypatch.setattr(idle, "SELDOM_SECONDS", 60.0)
    connection = apsw.Connection(":memory:")
    migrate.up(connection, migrate.load_migrations())
    work = Indexer(connection)
    work.step()
    for _ in range(40):
        time.sleep(0.005)
        work.committed(time.monotonic() if is_busy else 0.0)
    pause = work.pause()
    assert pause is not None
    assert (pause > 1) == is_busy
