"""Leaves as SQLite makes them: `json_object` with sorted keys gives the form of RFC 8785.

A Python object a column would cost ten times as much.
"""

from typing import Any, cast

import apsw

from audit_svc.ledger.erased import ERASED
from audit_svc.seal.leaf import VERSION, Kind, erased_hash, sealed_text


def prepare(connection: apsw.Connection) -> None:
    """Gives the connection the functions that select() calls."""
    connection.create_scalar_function("sealed_text", cast(Any, sealed_text), 2, deterministic=True)
    connection.create_scalar_function("erased_hash", cast(Any, erased_hash), 2, deterministic=True)


def select(kind: Kind, where: str) -> str:
    """The statement that gives (position, leaf) of rows in the order of their positions."""
    pairs = sorted(
        [(name, f"CAST({kind.column(name)} AS TEXT)") for name in kind.numbers]
        + [(name, kind.column(name)) for name in kind.texts]
        + [(name, _hash_sql(name)) for name in kind.hashed]
        + [("kind", f"'{kind.name}'"), ("v", f"'{VERSION}'")]
    )
    leaf = ", ".join(f"'{name}', {value}" for name, value in pairs)
    position = kind.column("position")
    return f"SELECT {position}, json_object({leaf}) FROM {kind.table} WHERE {where} ORDER BY {position}"  # noqa: S608 - names of ours


def select_hashed(kind: Kind, where: str) -> str:
    """As select(), with what the leaf's hash is of in the leaf's place: a zero byte and the leaf, as bytes."""
    return (
        f"WITH rows (position, leaf) AS ({select(kind, where)}) "  # noqa: S608 - names of ours
        "SELECT position, CAST(x'00' || leaf AS BLOB) FROM rows ORDER BY position"
    )


def _hash_sql(name: str) -> str:
    """A text that is not what an erased one is counts as what it is, so that its hash is another."""
    erased = f"erased IS NOT NULL AND {name} = '{ERASED}'"
    # a call of Python takes longer than to see that there is no text
    hash_ = f"CASE WHEN {erased} THEN erased_hash(erased, '{name}') ELSE sealed_text(salt, {name}) END"
    return f"iif({name} IS NULL, NULL, {hash_})"
