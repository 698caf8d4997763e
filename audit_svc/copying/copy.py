"""Copies a ledger with its seal, and verifies what came."""

import hashlib
import json
from collections.abc import Callable

from audit_svc.copying.ends import End
from audit_svc.errors import StoreRefused
from audit_svc.ledger.copying import TABLES, UNFINISHED, Copied, Tables, copy_tables, differences, is_empty
from audit_svc.seal.copying import copy_log
from audit_svc.seal.folder import CHECKPOINT, own_verifier
from audit_svc.seal.log import Log
from audit_svc.seal.verify import verify


def copy_ledger(source: End, target: End, on_progress: Callable[[Copied], None]) -> int:
    """Copies what is not there yet, and returns how many leaves of the seal were verified.

    Asked again after it was cut short it goes on, as long as the source is what it was.

    Raises:
        StoreRefused: the target has something else, the source was changed, or what came is not what is there.
        StoreUnavailable, DiskFull: asked again it goes on.
        SealError: the log cannot be read.
    """
    state = _state_of(source.tables, source.log)
    begun = target.log.read(UNFINISHED)
    if begun is None:
        if not is_empty(target.tables) or target.log.has_begun() or target.log.read(CHECKPOINT) is not None:
            raise StoreRefused(f"{target.name} has rows or a seal: copy into an empty one")
        target.log.write({UNFINISHED: state})
    elif begun != state:
        raise StoreRefused(
            f"{target.name} has part of another ledger, or of this one as it was before a service wrote to it again: "
            "empty it first"
        )
    copy_tables(source.tables, target.tables, on_progress)
    copy_log(source.log, target.log)
    target.make_derived()
    if different := differences(source.tables, target.tables):
        raise StoreRefused(f"what was copied is not what is there: {'; '.join(different)}")
    leaves = _verify(source, target)
    if _state_of(source.tables, source.log) != state or not source.is_unchanged():
        raise StoreRefused(
            f"{source.name} was written to while it was copied: stop its service, empty the target, and ask again"
        )
    target.finish(lambda log: log.remove(UNFINISHED))
    return leaves


def _verify(source: End, target: End) -> int:
    """The root is computed from the rows that came, and is what was signed."""
    signed = source.log.read(CHECKPOINT)
    if signed is None:
        return 0
    if target.log.read(CHECKPOINT) != signed:
        raise StoreRefused("the seal that was copied ends with another checkpoint")
    with target.reading() as ledger:
        report = verify(ledger, target.log, own_verifier(target.log), [])
    if report.problems:
        raise StoreRefused(f"what came does not fit its seal, as `audit-svc verify` says: {report.problems[0]}")
    return report.checkpoint.size if report.checkpoint else 0


def _state_of(tables: Tables, log: Log) -> bytes:
    """What tells a ledger in one state from others: the last keys, the clock, which each write moves on, the seal."""
    keys = {table.name: tables.last_key(table) for table in TABLES}
    of_one_row = [table for table in TABLES if table.is_single]
    single = [list(row) for table in of_one_row for row in tables.rows(table, tables.columns(table), None, 1)]
    said = json.dumps([keys, single, (log.read(CHECKPOINT) or b"").decode(errors="replace")])
    return hashlib.sha256(said.encode()).hexdigest().encode()
