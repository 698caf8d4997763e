"""Leaves have every column, and are the same from SQLite, Python and another encoder."""

from contextlib import closing
from typing import Any

import apsw
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from audit_svc.seal import leaf
from audit_svc.sqlite.seal import leaves


def test_a_leaf_has_every_column_of_its_table(connection: Any):
    for kind in leaf.KINDS:
        columns = {name for _, name, *_ in connection.execute(f"PRAGMA table_info({kind.table})")}
        assert set(kind.columns) == columns - set(leaf.BESIDE), (
            f"{kind.name} has other columns: give its leaf a new version"
        )


@given(st.dictionaries(st.sampled_from("abcdef"), st.text() | st.none()))
def test_leaves_are_what_another_encoder_of_rfc_8785_writes(said: dict[str, Any]):
    assert leaf.canonical(said) == rfc8785.dumps(said)


@given(text=st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0")))
def test_sqlite_and_python_write_the_same_leaf(text: str):
    kind = leaf.BY_NAME["removal"]
    with closing(apsw.Connection(":memory:")) as connection:
        connection.execute(f"CREATE TABLE removal_log ({', '.join(kind.columns)})")
        row = dict.fromkeys(kind.columns, 2**63 - 1) | {"removed_kind": text, "pruned_by": None}
        connection.execute(
            f"INSERT INTO removal_log ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", list(row.values())
        )
        ((_, said),) = connection.execute(leaves.select(kind, "true")).fetchall()
    assert str(said).encode() == kind.encode(row)
