"""Writes a session of the database anew: encrypted where it was in clear or by an older key, or in clear.

Whoever does it holds the session. Records are written some at a time; who is stopped in between begins again. The state
is encrypted last and put in clear first: one that is encrypted has no record in clear.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from gateway_svc.conversations.encryption import Cipher, NotGenuine
from gateway_svc.conversations.postgres.database import TURN, Database
from gateway_svc.conversations.session import SessionState
from gateway_svc.conversations.stored import encode_prompt, encode_state
from gateway_svc.errors import LeaseLost

_AT_ONCE_BYTES = 2**22

_HELD = "id = %(id)s AND holder = %(holder)s AND fence = %(fence)s"
_NEXT = """SELECT number, kind, payload FROM (
    SELECT number, kind, payload, sum(length(payload)) OVER (ORDER BY number) AS bytes,
           row_number() OVER (ORDER BY number) AS at
    FROM (SELECT * FROM conversation_records WHERE session_id = %(id)s AND number > %(after)s
          ORDER BY number LIMIT 256) AS records
) AS next WHERE bytes <= %(most)s OR at = 1 ORDER BY number"""
_PUT = f"""WITH held AS (SELECT 1 FROM conversations WHERE {_HELD} FOR UPDATE), put AS (
    UPDATE conversation_records AS records SET payload = written.payload
    FROM held, unnest(%(numbers)s::bigint[], %(payloads)s::bytea[]) AS written (number, payload)
    WHERE records.session_id = %(id)s AND records.number = written.number
)
SELECT count(*) FROM held"""
_PUT_STATE = f"""UPDATE conversations SET state = %(state)s, prompt = %(prompt)s, sums = NULL,
    bytes = (SELECT coalesce(sum(length(payload)), 0) FROM conversation_records WHERE session_id = %(id)s)
WHERE {_HELD}"""


async def rewrite(
    database: Database, ids: Mapping[str, Any], state: SessionState, records: int, cipher: Cipher
) -> None:
    """Writes a session as the cipher would write it now.

    ids: its id, its holder and its fence. state: with what a turn has spent since it was saved. records: how many it
    says that there are.

    Raises:
        KeyMissing: the key of a record is not there; the session is as readable as before.
        LeaseLost: another has taken the session.
        StoreUnavailable: the database cannot be used now.
    """
    if cipher.encrypts:
        await _rewrite_records(database, ids, cipher)
    values = {"state": encode_state(state, records, cipher), "prompt": encode_prompt(state, cipher)}
    rows = await database.ask(_PUT_STATE, {**ids, **values}, TURN)
    if not rows[0][0]:
        raise _lost(ids)
    cipher.takes_clear = not cipher.encrypts
    if not cipher.encrypts:
        await _rewrite_records(database, ids, cipher)


async def _rewrite_records(database: Database, ids: Mapping[str, Any], cipher: Cipher) -> None:
    after = 0
    while rows := await database.ask(_NEXT, {"id": ids["id"], "after": after, "most": _AT_ONCE_BYTES}):
        after = rows[-1][0]
        numbers, payloads = list[int](), list[bytes]()
        for number, kind, payload in rows:
            if cipher.is_current(payload):
                continue
            with suppress(NotGenuine):  # it stays what it is, and is told as such
                payloads.append(cipher.encrypt(kind, number, cipher.decrypt(kind, number, payload)))
                numbers.append(number)
        if numbers:
            written = await database.ask(_PUT, {**ids, "numbers": numbers, "payloads": payloads}, TURN)
            if not written[0][0]:
                raise _lost(ids)


def _lost(ids: Mapping[str, Any]) -> LeaseLost:
    return LeaseLost(f"another gateway has taken session {ids['id']} over, since this one did not answer")
