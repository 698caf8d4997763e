"""A PostgreSQL server, and a database of a test's own with the schema in it."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from audit_svc.ledger.batch import read_batch
from audit_svc.ledger.copying import differences
from audit_svc.postgres.copying import PostgresTables
from audit_svc.postgres.open import migrate
from audit_svc.postgres.open.connection import Connection, connect
from audit_svc.sqlite.copying import SqliteTables
from audit_svc.sqlite.open.connection import open_for_reading
from audit_svc.sqlite.write.writer import Writer
from tests.audit_svc.postgres.sealed import PostgresSeal, Record
from tests.audit_svc.samples import NOW_MS, record_request
from tests.audit_svc.seal.conftest import rows
from tests.support.postgres import *  # noqa: F403 - fixtures


@pytest.fixture
def empty(postgres_database: str) -> Iterator[Connection]:
    connection = connect(postgres_database, writes=True)
    yield connection
    connection.close()


@pytest.fixture
def migrated(empty: Connection) -> Connection:
    migrate.up(empty, migrate.load_migrations())
    return empty


@pytest.fixture
def seal(migrated: Connection, postgres_database: str, tmp_path: Path, writer: Any, database: Path) -> PostgresSeal:
    return PostgresSeal(postgres_database, migrated, tmp_path / "keys", database)


@pytest.fixture
def record(writer: Writer) -> Record:
    def record_all(**fields: Any) -> None:
        writer.record(read_batch(record_request(**fields), NOW_MS)).result()

    return record_all


@pytest.fixture
def filled(seal: PostgresSeal, record: Record) -> PostgresSeal:
    record(**rows(40), last=3)
    seal.copy()
    with closing(open_for_reading(seal.database)) as connection:
        assert not differences(SqliteTables(connection, seal.database), PostgresTables(seal.connection))
    return seal
