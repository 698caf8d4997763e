"""A ledger of the rows that are listed, and the ways in which a listing looks for what is rare."""

from collections.abc import Iterator
from contextlib import closing

import apsw
import pytest

from audit_svc.sql.read import listing, walks
from audit_svc.sqlite.open import migrate
from audit_svc.sqlite.open.connection import open_for_reading, open_for_writing
from audit_svc.sqlite.write.writer import Writer
from tests.audit_svc.sqlite.listed import fill


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[apsw.Connection]:
    """A ledger of ROWS and SESSIONS that no test changes."""
    database = tmp_path_factory.mktemp("filled") / "audit.db"
    connection = open_for_writing(database)
    migrate.up(connection, migrate.load_migrations())
    with closing(Writer(connection, 50_000)) as writer:
        fill(writer)
    reading = open_for_reading(database)
    yield reading
    reading.close()


@pytest.fixture(params=["few", "many"])
def patient(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With many sessions of a label, and windows and patience that end soon, what is rare among millions is tried."""
    if request.param == "many":
        monkeypatch.setattr(listing, "FEW_SESSIONS", 0)
        monkeypatch.setattr(walks, "MAX_PAIRS", 1)
        monkeypatch.setattr(walks, "FIRST_WINDOW", 3)
        monkeypatch.setattr(walks, "LAST_WINDOW", 10)
        monkeypatch.setattr(walks, "PATIENCE_SECONDS", 0.0)
    return str(request.param)
