"""The service's role: a ledger works with it, and to the logs it can only add."""

import subprocess
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from onrecord.audit.v1 import administration_pb2, audit_pb2

from audit_svc.errors import MigrationRefused
from audit_svc.ledger.erasing import Erasure
from audit_svc.ledger.holds import Act
from audit_svc.ledger.steps import HOUR_MS
from audit_svc.postgres.open import migrate
from audit_svc.postgres.open.connection import connect
from audit_svc.postgres.store import PostgresLedger
from audit_svc.seal.folder import own_verifier
from audit_svc.seal.verify import verify
from audit_svc.sealing.places import open_sealer, place_of
from demo.postgres import PostgresServer, find_binaries
from tests.audit_svc.samples import NOW_MS, audit_row, batch, cost_row, session_row

pytestmark = pytest.mark.postgres

RIGHTS = Path(__file__).parents[3] / "deploy/postgres/service-role.sql"
LOGS = (
    *("tool_call_log", "cost_log", "control_log", "session_log", "query_log", "gap_log", "hold_log"),
    *("removal_log", "erasure_log"),
)
MARK = NOW_MS // HOUR_MS * HOUR_MS - 5 * HOUR_MS


@pytest.fixture
def service_url(migrated: Any, postgres_server: PostgresServer, postgres_database: str) -> str:
    """The database as the service's own user reaches it."""
    psql = (find_binaries() or Path()) / "psql"
    arguments: list[str | Path] = ["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", postgres_database, "-f", RIGHTS]
    ran = subprocess.run([psql, *arguments], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    if not postgres_server.execute("SELECT 1 FROM pg_roles WHERE rolname = 'service'"):
        postgres_server.execute("CREATE ROLE service LOGIN; GRANT onrecord_service TO service")
    return postgres_server.url(postgres_database.rpartition("/")[2], user="service")


@pytest.fixture
async def ledger(service_url: str) -> AsyncIterator[PostgresLedger]:
    ledger = PostgresLedger.open(service_url, queue_rows=50_000)
    yield ledger
    await ledger.close()


async def fill(ledger: PostgresLedger) -> None:
    control = audit_pb2.ControlRow(id="stop", kind=audit_pb2.CONTROL_KIND_STOP, scope="all", at_ms=NOW_MS)
    rows = [audit_row(id="old", session_id="old", created_at_ms=MARK - 1), audit_row(id="new", error="broken")]
    costs = [cost_row(id="old", session_id="old", created_at_ms=MARK - 1), cost_row()]
    sessions = [
        session_row(id="old", created_at_ms=MARK - HOUR_MS, updated_at_ms=MARK - 1),
        session_row(),
    ]
    answer = await ledger.record(batch(*rows, model_requests=costs, sessions=sessions, controls=[control]))
    assert answer.stored == 7


async def test_a_ledger_works_with_the_services_rights_alone(ledger, migrated):
    await fill(ledger)
    assert (await ledger.record(batch(audit_row(id=""), audit_row()))).stored == 1
    hold = administration_pb2.HoldFilter(tool_glob="nothing*")
    assert (await ledger.act_on_hold(Act("case", "ada", "asked to", hold))).name == "case"
    assert [one.erased.tool_calls async for one in ledger.erase(Erasure("ada", "asked to", row_id="new"))][-1] == 1
    removed = [one.removed async for one in ledger.prune(MARK, "ada")][-1]
    assert (removed.tool_calls, removed.model_requests, removed.sessions) == (1, 1, 1)
    assert await ledger.why_no_commit() == ""
    said = migrated.execute("SELECT removed_kind, first_position, last_position, pruned_by FROM removal_log ORDER BY 1")
    assert said.fetchall() == [("model_request", 1, 1, "ada"), ("session", 1, 1, "ada"), ("tool_call", 1, 1, "ada")]
    assert migrated.execute("SELECT erased_kind, first_position, erased_by FROM erasure_log").fetchall() == [
        ("tool_call", 2, "ada")
    ]


async def test_the_ledger_is_sealed_with_the_services_rights_alone(ledger, service_url, tmp_path):
    await fill(ledger)
    place = place_of(service_url)
    with open_sealer(place, tmp_path / "key", "ledger.example.com/test") as sealer:
        while sealer.step():
            pass
        sealer.rotate_key("a year has passed", "ada")
        assert sealer.size == 8
    with closing(place.open_ledger()) as sealed, closing(place.open_log()) as log, sealed.moment():
        report = verify(sealed, log, own_verifier(log), [])
    assert (report.problems, report.rows) == ([], 7)


async def test_the_service_can_neither_change_nor_remove_what_is_in_a_log(ledger, service_url):
    await fill(ledger)
    with closing(connect(service_url)) as service:
        for table in LOGS:
            ((column,),) = service.execute(
                "SELECT attname FROM pg_attribute WHERE attrelid = ?::regclass AND attnum = 1", (table,)
            ).fetchall()
            for statement in (f"UPDATE {table} SET {column} = {column}", f"DELETE FROM {table}", f"TRUNCATE {table}"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    service.execute(statement)
        # Its functions remove only what is older than the mark, and erase a text once.
        assert service.execute("SELECT remove_rows('tool_call', ARRAY[1, 2]::bigint[], 'eve', 0)").fetchall() == []
        erase = "SELECT erase_rows('tool_call', ARRAY[1]::bigint[], ARRAY['{}'], 'eve', 'no reason', 0)"
        assert service.execute(erase).fetchall() == [(1,)]
        assert service.execute(erase).fetchall() == []
        with pytest.raises(psycopg.errors.RaiseException, match="are never removed"):
            service.execute("SELECT remove_rows('hold', ARRAY[1]::bigint[], 'eve', 0)")


def test_the_service_migrates_nothing_and_says_who_does(migrated, service_url):
    migrate.down(migrated, migrate.load_migrations(), 0)
    with pytest.raises(MigrationRefused, match=r"as the owner .* deploy/postgres/service-role\.sql"):
        PostgresLedger.open(service_url, queue_rows=10)
