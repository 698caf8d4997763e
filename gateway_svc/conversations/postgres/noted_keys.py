"""Which keys the sessions of the database may be encrypted by: a table with what tells the keys from others."""

from collections.abc import Mapping
from typing import Any

import psycopg

from gateway_svc.conversations.encryption import Keys

_NOTE = "INSERT INTO conversation_keys VALUES (%(id)s, %(check)s) ON CONFLICT DO NOTHING"

_USE = 0x6F6E7266
"""Gateways hold the advisory lock (_USE, hash of the id), shared, of the key that they encrypt by."""
_IS_UNUSED = f"pg_try_advisory_xact_lock({_USE}, hashtext(id))"
"""Whether no running gateway encrypts by a key. One that starts waits for the end of the statement, and notes it then.
"""
USED = f"SELECT id FROM conversation_keys WHERE id IS DISTINCT FROM %(id)s AND NOT {_IS_UNUSED} ORDER BY id"
NOTE_ONLY = f"DELETE FROM conversation_keys WHERE id IS DISTINCT FROM %(id)s AND {_IS_UNUSED}"


def note_keys(connection: psycopg.Connection[Any], keys: Keys) -> None:
    """Looks whether keys are those of the sessions, and notes the one that encrypts before it does.

    Raises:
        SettingsError: they are not.
        psycopg.Error: the database cannot be used.
    """
    if keys.first:
        connection.execute(_NOTE, _first(keys))
    noted: Mapping[str, bytes] = {
        key_id: bytes(check)
        for key_id, check in connection.execute("SELECT id, key_check FROM conversation_keys").fetchall()
    }
    keys.compare(noted)


async def use_key(connection: psycopg.AsyncConnection[Any], keys: Keys) -> None:
    """Shows to others that the key that encrypts is in use, for as long as the connection stays.

    Raises:
        psycopg.Error: the database cannot be used.
    """
    if keys.first:
        await connection.execute("SELECT pg_advisory_lock_shared(%s, hashtext(%s))", (_USE, keys.first))
        # Others may have taken it for unused, before this connection was made.
        await connection.execute(_NOTE, _first(keys))


def _first(keys: Keys) -> Mapping[str, Any]:
    return {"id": keys.first, "check": keys.checks()[keys.first or ""]}
