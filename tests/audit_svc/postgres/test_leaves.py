"""Leaves are the same in both stores."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit_svc.ledger.copying import TABLES
from audit_svc.postgres.copying import PostgresTables
from audit_svc.seal import leaf
from audit_svc.sqlite.seal.ledger import SqliteSealedLedger
from tests.audit_svc.postgres.sealed import PostgresSeal

pytestmark = pytest.mark.postgres


def test_leaves_of_a_ledger_are_alike_in_both_stores(filled: PostgresSeal, database: Path):
    with (
        closing(SqliteSealedLedger.open(database)) as sqlite,
        closing(filled.place.open_ledger()) as postgres,
        sqlite.moment(),
        postgres.moment(),
    ):
        for kind in leaf.KINDS:
            found = list(postgres.leaves_after(kind, 0))
            assert found == list(sqlite.leaves_after(kind, 0))
            assert found == [(at, kind.encode(postgres.row(kind, at))) for at, _ in found]
            if "id" in kind.texts:
                assert sorted(postgres.newest_ids(kind, 1000)) == sorted(sqlite.newest_ids(kind, 1000))
            assert list(postgres.leaves_after(kind, 1, until=7, limit=3)) == list(
                sqlite.leaves_after(kind, 1, until=7, limit=3)
            )
        assert postgres.producers() == sqlite.producers() != {}


TEXTS = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_rows_have_the_same_leaf_in_both_stores(filled: PostgresSeal, connection: Any, database: Path, data: Any):
    """Whatever their columns hold, in both stores and in Python."""
    kind = data.draw(st.sampled_from([kind for kind in leaf.KINDS if kind.name not in {"gap", "hold"}]))
    numbers = {kind.column(name) for name in kind.numbers}
    columns = [
        name for name in (*kind.columns, *(leaf.BESIDE if kind.hashed else ())) if name != kind.column("position")
    ]
    nullable = {"salt", "erased", "error", "reason"} | {
        name for name in numbers if name in {"exit_code", "http_status"}
    }
    row: dict[str, Any] = {kind.column("position"): data.draw(st.integers(10_000, 2**62))}
    for name in columns:
        if name == "salt":
            value: Any = st.binary(max_size=16)
        elif name == "erased":
            value = st.just('{"error": "00", "args_summary": "11", "reason": 7}') | TEXTS
        elif name in numbers:
            value = st.integers(0, 1) if name in SMALL else st.integers(-(2**63), 2**63 - 1)
        else:
            value = st.just("[erased]") | TEXTS if name in kind.hashed else TEXTS
        row[name] = data.draw(value | st.none() if name in nullable and kind.name != "erasure" else value)
    names = sorted(row)
    table = next(table for table in TABLES if table.name == kind.table)
    values = [[row[name] for name in names]]
    where = f"{kind.column('position')} = {row[kind.column('position')]}"
    connection.execute("SAVEPOINT made")
    try:
        connection.execute(
            f"INSERT OR REPLACE INTO {kind.table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})",
            values[0],
        )
        leaf_of_sqlite = SqliteSealedLedger(connection, database).leaf_at(kind, row[kind.column("position")])
    finally:
        connection.execute("ROLLBACK TO made")
        connection.execute("RELEASE made")
    PostgresTables(filled.connection).add(table, names, values, instead=False)
    try:
        with closing(filled.place.open_ledger()) as postgres:
            assert postgres.leaf_at(kind, row[kind.column("position")]) == leaf_of_sqlite == kind.encode(row)
    finally:
        filled.change(f"DELETE FROM {kind.table} WHERE {where}")


SMALL = {"result_truncated", "times_observed", "shadow", "unconfined", "usage_incomplete", "context_exceeded"} | {
    "cost_reported"
}
