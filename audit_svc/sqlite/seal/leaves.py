"""Leaves as SQLite makes them: `json_object` with sorted keys gives the form of RFC 8785.

A Python object a column would cost ten times as much.
"""

import hashlib
from typing import Any, cast

import apsw

from audit_svc.ledger.erased import ERASED
from audit_svc.seal.leaf import VERSION, Kind, erased_hash


def prepare(connection: apsw.Connection) -> None:
    """Gives the connection the functions that select() calls."""
    connection.create_scalar_function("hex_sha256", cast(Any, _hex_sha256), 1, deterministic=True)
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


def select_bytes(kind: Kind, where: str) -> str:
    """As select(), with the leaf as bytes."""
    return (
        f"WITH rows (position, leaf) AS ({select(kind, where)}) "  # noqa: S608 - names of ours
        "SELECT position, CAST(leaf AS BLOB) FROM rows ORDER BY position"
    )


def _hash_sql(name: str) -> str:
    """A text that is not what an erased one is counts as what it is, so that its hash is another."""
    erased = f"erased IS NOT NULL AND {name} = '{ERASED}'"
    # salt and text as one value of bytes: Python would make a text, encode it and put it behind the salt
    hash_ = f"hex_sha256(CAST(coalesce(salt, x'') || {name} AS BLOB))"
    return f"CASE WHEN {name} IS NULL THEN NULL WHEN {erased} THEN erased_hash(erased, '{name}') ELSE {hash_} END"


def _hex_sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
