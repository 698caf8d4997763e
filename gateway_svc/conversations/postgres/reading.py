"""Records of the database as a history, and as pages of what was said."""

import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

from gateway_svc.conversations.encryption import Cipher
from gateway_svc.conversations.history import mended
from gateway_svc.conversations.memory import History, Kept
from gateway_svc.conversations.postgres.database import TURN, Database
from gateway_svc.conversations.records import MAX_READ_BYTES, USER, Found
from gateway_svc.conversations.said import Place, Said, SaidPage
from service_kit.paging import MAX_PAGE_BYTES

_FROM = """SELECT number, kind, payload FROM conversation_records
WHERE session_id = %(id)s AND number >= %(start)s ORDER BY number"""

_BEGIN = """SELECT min(number) FROM (
    SELECT number, sum(length(payload)) OVER (ORDER BY number DESC) AS bytes FROM conversation_records
    WHERE session_id = %(id)s
) AS records WHERE bytes <= %(most)s"""

_MORE = "SELECT 1 FROM conversation_records WHERE session_id = %(id)s AND number >= %(start)s LIMIT 1"

_SAID = """SELECT number, kind, payload FROM (
    SELECT number, kind, payload, sum(length(payload)) OVER (ORDER BY number) AS bytes,
           row_number() OVER (ORDER BY number) AS at
    FROM (SELECT * FROM conversation_records WHERE session_id = %(id)s AND number >= %(start)s
          ORDER BY number LIMIT %(size)s) AS records
) AS page WHERE bytes <= %(most)s OR at = 1 ORDER BY number"""


def digest_of(payload: bytes) -> bytes:
    """What tells a record from another of the same number."""
    return hashlib.blake2b(payload, digest_size=16).digest()


class Read(NamedTuple):
    """What was read of a session."""

    history: History
    records: int
    """The number of its last record."""
    last: bytes
    """What tells that record from another of the same number; empty if there is none."""


async def read(database: Database, cipher: Cipher, session_id: str, records: int, size: int, kept: Kept | None) -> Read:
    """Reads a session's history: what is not in memory of it, or all; of one that is too long its end.

    records and size are how many records there should be, and the bytes of their payloads.

    Raises:
        KeyMissing: a key that a record is encrypted by is not there.
        StoreUnavailable: the database cannot be used now.
    """
    if kept is not None and 0 < kept.end <= records:
        rows = await database.ask(_FROM, {"id": session_id, "start": kept.end}, TURN)
        if rows and rows[0][0] == kept.end and digest_of(rows[0][2]) == kept.identity:
            found = _found(cipher, rows[1:], kept.end + 1, records)
            if not found.holes:
                kept.history.messages += found.messages
                kept.history.bytes += found.size_bytes
                return Read(kept.history, found.number - 1, digest_of(rows[-1][2]))
    start = 1
    if size > MAX_READ_BYTES:
        begin = await database.ask(_BEGIN, {"id": session_id, "most": MAX_READ_BYTES}, TURN)
        start = int(begin[0][0] or records)
    rows = await database.ask(_FROM, {"id": session_id, "start": start}, TURN)
    cut = next((at for at, row in enumerate(rows) if row[1] == USER), 0) if start > 1 else 0
    found = _found(cipher, rows[cut:], start + cut, records)
    found.left_out += start + cut - 1
    messages = mended(found.messages) if found.holes else found.messages
    history = History(messages, unreadable=found.unreadable, bytes=found.size_bytes)
    return Read(history, found.number - 1, digest_of(rows[-1][2]) if rows else b"")


def _found(cipher: Cipher, rows: Iterable[Any], start: int, records: int) -> Found:
    found = Found(number=start)
    for number, kind, payload in rows:
        if number > found.number:
            found.holes.append(f"records {found.number} to {number - 1} are missing")
        found.number = number + 1
        if (said := found.decrypt(cipher, number, kind, payload)) is not None:
            found.add(number, kind, said)
    if found.number <= records:
        found.holes.append(f"its last {records - found.number + 1} records are missing")
        found.number = records + 1
    found.decode_all()
    return found


async def said_page(database: Database, cipher: Cipher, session_id: str, after: Place, size: int) -> SaidPage:
    """A page of what was said, see protocol.Conversations.read_said.

    Raises:
        KeyMissing: a key that a record is encrypted by is not there.
        StoreUnavailable: the database cannot be used now.
    """
    due = max(1, after.number)
    values = {"id": session_id, "start": due, "size": size + 1, "most": MAX_PAGE_BYTES}
    rows = await database.ask(_SAID, values)
    page = list[Said]()
    for number, kind, stored in rows:
        if number > due and len(page) < size:
            page.append(Said(0, {"damaged": f"records {due} to {number - 1} are missing"}))
            due = number
        if len(page) == size:
            return SaidPage(page, Place(due, 0))
        found = Found()
        payload = found.decrypt(cipher, number, kind, stored)
        line = None if payload is None else found.decode(payload, number)
        page.append(Said(0, {"damaged": found.holes[0]}) if line is None else Said(number, line))
        due = number + 1
    more = bool(rows) and await database.ask(_MORE, {"id": session_id, "start": due})
    return SaidPage(page, Place(due, 0) if more else None)
