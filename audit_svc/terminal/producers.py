"""The producers of a ledger: what each has sent, what never came, and what was refused."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from audit_svc.ledger.query import Filter, Query
from audit_svc.sql.care.shared_ids import shared_ids
from audit_svc.sql.database import Database
from audit_svc.sql.read import producers as read
from audit_svc.stores.by_hand import by_hand
from audit_svc.terminal.plain import json_line
from audit_svc.terminal.running import AnyDatabase, Json, err, error_is_exit_code_1, named_database, out, say_unseen
from service_kit.printable import printable
from service_kit.terminal.printing import Table, Wide
from service_kit.times import show_time

PAGE = 1000


@dataclass(frozen=True, slots=True)
class Producer:
    """One producer; times as the commands show them, empty where it keeps no numbers."""

    id: str
    recorded_by: str
    """The name of the caller that it is; empty where it has none."""
    highest_sequence: int
    first_seen: str
    last_seen: str
    missing: int
    """Numbers below the highest that never came."""
    refused: int
    """Rows that were refused for good: the producer keeps them in its dead letters."""
    reasons: str


def producers(db: AnyDatabase = None, as_json: Json = False, wide: Wide = False) -> None:
    """List producers: the numbers that came, those that never did, and the rows that were refused for good."""
    with error_is_exit_code_1(), by_hand(named_database(db)).reading(say_unseen) as database:
        found, shared = list_producers(database), list(shared_ids(database))
    for conflict in shared:
        told = f"{conflict.what} {printable(conflict.id)!r} was recorded by {printable(conflict.names)}"
        err.print(told, style="yellow")
    if as_json:
        for producer in found:
            sys.stdout.write(json_line(asdict(producer)))
        return
    if not found:
        err.print("no producer has sent anything", style="yellow")
        return
    out.print(table_of(found), wide=wide)


def table_of(found: Sequence[Producer]) -> Table:
    """Producers, one per line."""
    names = ["recorded by"] if any(each.recorded_by for each in found) else []
    columns = ("producer", *names, "numbers", "missing", "refused", "first seen", "last seen")
    table = Table(*columns, least=("first seen", *names, "last seen"))
    for each in found:
        refused = f"{each.refused} ({each.reasons})" if each.refused else "0"
        table.add_row(
            printable(each.id) or "(without numbers)",
            *([printable(each.recorded_by)] if names else []),
            str(each.highest_sequence),
            str(each.missing),
            refused,
            each.first_seen,
            each.last_seen,
        )
    return table


def list_producers(database: Database) -> list[Producer]:
    """All producers by id and name, also those of which every row was refused; of what the agents of sessions number
    themselves (audit_svc.ledger.numbers.stream_id), what has holes.
    """
    found, after = list[Producer](), None
    while True:
        page = read.list_producers(database, Query(Filter(), PAGE, after))
        found += [
            Producer(
                row.id,
                row.recorded_by,
                row.highest_sequence,
                _time(row.first_seen_ms),
                _time(row.last_seen_ms),
                row.missing,
                row.refused_rows,
                ", ".join(row.refusal_codes),
            )
            for row in page.rows
        ]
        if page.next is None:
            return found
        after = page.next


def _time(at_ms: int) -> str:
    return show_time(at_ms) if at_ms else ""
