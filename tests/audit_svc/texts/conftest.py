"""A ledger whose index of texts has small zones, made in many steps."""

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType

import apsw
import pytest

from audit_svc.ledger import idle
from audit_svc.sql.read import walks
from audit_svc.sqlite.open.connection import open_for_writing
from audit_svc.sqlite.text import text_index, text_search
from audit_svc.sqlite.text.text_index import index_rows
from tests.audit_svc.empty import write_empty
from tests.audit_svc.texts.ledger import call, write

SMALL: dict[ModuleType, dict[str, object]] = {
    text_index: {"ZONE_ROWS": 32, "ROWS_A_STEP": 8, "CHARACTERS_A_STEP": 60, "PAGES_A_STEP": 1},
    text_search: {"VAIN": 1, "ROWS_SAMPLED": 4},
    walks: {"LONG_WALK": -1, "FIRST_WINDOW": 2},
    idle: {"QUIET_SECONDS": 0.0},
}
"""Zones of 32 rows; no walk is too short for the index."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has all of these tests use the sizes above."""
    make_small(monkeypatch)


def make_small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, sizes in SMALL.items():
        for name, size in sizes.items():
            monkeypatch.setattr(module, name, size)


@pytest.fixture(scope="module")
def of_a_thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger of 1,000 calls, of which a few have a rare text; all are indexed."""
    database = tmp_path_factory.mktemp("texts") / "audit.db"
    write_empty(database)
    with pytest.MonkeyPatch.context() as patch, closing(open_for_writing(database)) as connection:
        make_small(patch)
        for first in range(0, 1000, 100):
            write(connection, *[call(number) for number in range(first, first + 100)])
        list(index_rows(connection))
    return database


@pytest.fixture
def filled(of_a_thousand: Path, database: Path) -> Iterator[apsw.Connection]:
    """A copy of the ledger above."""
    shutil.copy(of_a_thousand, database)
    with closing(open_for_writing(database)) as connection:
        yield connection
