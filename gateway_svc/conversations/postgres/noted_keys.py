"""Which keys the sessions of the database may be encrypted by: a table with what tells the keys from others."""

from collections.abc import Mapping
from typing import Any

import psycopg

from gateway_svc.conversations.encryption import Keys

_NOTE = "INSERT INTO conversation_keys VALUES (%(id)s, %(check)s) ON CONFLICT DO NOTHING"
NOTE_ONLY = "DELETE FROM conversation_keys WHERE id IS DISTINCT FROM %(id)s"


def note_keys(connection: psycopg.Connection[Any], keys: Keys) -> None:
    """Looks whether keys are those of the sessions, and notes the one that encrypts before it does.

    Raises:
        SettingsError: they are not.
        psycopg.Error: the database cannot be used.
    """
    if keys.first:
        connection.execute(_NOTE, {"id": keys.first, "check": keys.checks()[keys.first]})
    noted: Mapping[str, bytes] = {
        key_id: bytes(check)
        for key_id, check in connection.execute("SELECT id, key_check FROM conversation_keys").fetchall()
    }
    keys.compare(noted)
