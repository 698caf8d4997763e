"""A ledger whose index of texts has small zones, made in many steps."""

from types import ModuleType

import apsw
import pytest

from audit_svc.sqlite.read import tool_calls
from audit_svc.sqlite.text import indexer, text_index, text_search
from audit_svc.sqlite.text.text_index import index_rows
from tests.audit_svc.texts.ledger import call, write

SMALL: dict[ModuleType, dict[str, object]] = {
    text_index: {"ZONE_ROWS": 32, "ROWS_A_STEP": 8, "CHARACTERS_A_STEP": 60, "PAGES_A_STEP": 1},
    text_search: {"VAIN": 1, "ROWS_SAMPLED": 4},
    tool_calls: {"LONG_WALK": -1, "FIRST_WINDOW": 2},
    indexer: {"QUIET_SECONDS": 0.0},
}
"""Zones of 32 rows; no walk is too short for the index."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has all of these tests use the sizes above."""
    for module, sizes in SMALL.items():
        for name, size in sizes.items():
            monkeypatch.setattr(module, name, size)


@pytest.fixture
def filled(connection: apsw.Connection) -> apsw.Connection:
    """1,000 calls, of which a few have a rare text; all are indexed."""
    for first in range(0, 1000, 100):
        write(connection, *[call(number) for number in range(first, first + 100)])
    list(index_rows(connection))
    return connection
