"""A PostgreSQL server, and a database of a test's own with the schema in it."""

from collections.abc import Iterator

import pytest

from audit_svc.postgres.open import migrate
from audit_svc.postgres.open.connection import Connection, connect
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
