"""The whole file is checked when its last end was not clean, and every so many days, beside a service that runs."""

import asyncio
import json
import os
import time

import pytest

from audit_svc.errors import StoreRefused, StoreUnavailable
from audit_svc.ledger.load import Load
from audit_svc.ledger.migrations import Migration
from audit_svc.sqlite.care import soundness
from audit_svc.sqlite.care.last_check import mark_of
from audit_svc.sqlite.open import migrate
from audit_svc.sqlite.open.connection import why_damaged as look
from tests.audit_svc.damaged import damage
from tests.audit_svc.samples import audit_row, batch

DAY_SECONDS = 24 * 3600


@pytest.fixture
def checks(monkeypatch):
    """Counts the checks."""
    found = []

    def why_damaged(connection):
        found.append(connection.filename)
        return look(connection)

    monkeypatch.setattr("audit_svc.sqlite.care.soundness.why_damaged", why_damaged)
    return found


async def checked(store) -> None:
    while not store._soundness._checked_at_ms:
        await asyncio.sleep(0.01)


async def opened_and_closed(open_ledger, database, **options) -> None:
    store = open_ledger(database, queue_rows=10_000, **options)
    await store.record(batch(audit_row()))
    await checked(store)
    await store.close()


async def test_a_clean_end_spares_the_next_start_a_check(database, open_ledger, checks):
    await opened_and_closed(open_ledger, database)
    assert len(checks) == 1
    await opened_and_closed(open_ledger, database)
    await opened_and_closed(open_ledger, database)
    assert len(checks) == 1


async def test_while_it_runs_there_is_no_mark_so_that_an_end_by_force_is_seen(database, open_ledger, checks):
    await opened_and_closed(open_ledger, database)
    store = open_ledger(database, queue_rows=10_000)
    assert not mark_of(database).exists()
    await store.close()
    mark_of(database).unlink()
    await opened_and_closed(open_ledger, database)
    assert len(checks) == 2


@pytest.mark.long
@pytest.mark.parametrize("text", ["", "{", "[]", '{"checked_at_ms": 1}', '{"is_sound": true, "file": {}}'])
async def test_a_mark_that_is_not_whole_is_none(database, open_ledger, checks, text):
    await opened_and_closed(open_ledger, database)
    mark_of(database).write_text(text)
    await opened_and_closed(open_ledger, database)
    assert len(checks) == 2


async def test_a_file_that_another_program_changed_is_checked(database, open_ledger, checks):
    await opened_and_closed(open_ledger, database)
    os.utime(database, ns=(0, database.stat().st_mtime_ns + 1))
    await opened_and_closed(open_ledger, database)
    assert len(checks) == 2


@pytest.mark.long
@pytest.mark.parametrize("days", [-31, 1], ids=["31 days ago", "tomorrow"])
async def test_a_check_that_is_old_or_of_the_future_is_made_again(database, open_ledger, checks, days):
    await opened_and_closed(open_ledger, database)
    mark = json.loads(mark_of(database).read_text())
    mark["checked_at_ms"] = int((time.time() + days * DAY_SECONDS) * 1000)
    mark_of(database).write_text(json.dumps(mark))
    await opened_and_closed(open_ledger, database, check_days=30)
    assert len(checks) == 2


async def test_damage_is_found_beside_the_service_which_then_commits_nothing(database, open_ledger):
    damage(database)
    store = open_ledger(database, queue_rows=10_000)
    await checked(store)
    assert "the database is damaged" in await store.why_no_commit()
    with pytest.raises(StoreUnavailable, match=r"the database is damaged \(.*\): restore a backup"):
        await store.record(batch(audit_row()))
    with pytest.raises(StoreUnavailable, match="the database is damaged"):
        await store.reset_mark(0, "")
    await store.close()
    # Once known, it is looked at before a row is taken.
    with pytest.raises(StoreRefused, match="the database is damaged"):
        open_ledger(database, queue_rows=10_000)


@pytest.mark.long
async def test_a_database_that_was_put_back_in_place_of_a_damaged_one_is_served(database, open_ledger):
    await opened_and_closed(open_ledger, database)
    backup = database.read_bytes()
    database.unlink()
    mark_of(database).unlink()
    database.with_name("audit.db.served").unlink()
    damage(database)
    store = open_ledger(database, queue_rows=10_000)
    await checked(store)
    await store.close()
    database.write_bytes(backup)
    await opened_and_closed(open_ledger, database)


async def test_pending_migrations_wait_for_the_check(database, open_ledger, monkeypatch):
    damage(database)
    more = [*migrate.load_migrations(), Migration(9999, "more", "SELECT 1", "SELECT 1")]
    monkeypatch.setattr(migrate, "load_migrations", lambda: more)
    with pytest.raises(StoreRefused, match="the database is damaged"):
        open_ledger(database, queue_rows=10_000)


@pytest.mark.long
async def test_closing_gives_up_a_check_and_leaves_no_mark(database, open_ledger, monkeypatch):
    monkeypatch.setattr(soundness, "_STEPS", 1)
    store = open_ledger(database, queue_rows=10_000)
    await store.record(batch(*(audit_row(id=f"row-{number}") for number in range(2000))))
    await checked(store)
    await store.close()
    mark_of(database).unlink()
    # The writer seems busy, so that the check makes room for it for longer than the test may take.
    monkeypatch.setattr(soundness, "SHARE", 1e-6)
    monkeypatch.setattr(Load, "is_busy", lambda load: True)
    store = open_ledger(database, queue_rows=10_000)
    await store.record(batch(audit_row(id="last")))
    await store.close()
    assert not mark_of(database).exists()
