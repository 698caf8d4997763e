"""The producers of a ledger: what each has sent, what never came, and what was refused."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

from onrecord.audit.v1 import questions_pb2

from audit_svc.ledger.query import Filter, Query
from audit_svc.sql.care.shared_ids import shared_ids
from audit_svc.sql.database import Database
from audit_svc.sql.read import producers as read
from audit_svc.stores.by_hand import by_hand
from audit_svc.terminal.client import all_rows, connect
from audit_svc.terminal.options import Source, Target
from audit_svc.terminal.plain import json_line
from audit_svc.terminal.running import Json, err, error_is_exit_code_1, named_database, out, refuse_both, say_unseen
from service_kit.printable import printable
from service_kit.terminal.command import Option
from service_kit.terminal.printing import Table, Wide
from service_kit.times import show_time

PAGE = 1000
AnyDb = Annotated[
    str | None,
    Option("--db", envvar="ONRECORD_DB", help="A database, a backup or postgresql://… to read, without a service."),
]


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


def producers(target: Target = None, db: AnyDb = None, as_json: Json = False, wide: Wide = False) -> None:
    """List producers: the numbers that came, those that never did, and the rows that were refused for good.

    Of a database it also names the ids of rows that several callers recorded.
    """
    refuse_both(db, target)
    if db is None:
        with connect(Source(target=target)) as client:
            rows = all_rows(client, "ListProducers", questions_pb2.ListProducersRequest(), "producers")
        found, shared = list(map(_producer, rows)), []
    else:
        with error_is_exit_code_1(), by_hand(named_database(db)).reading(say_unseen) as database:
            found, shared = list_producers(database), list(shared_ids(database))
    for conflict in shared:
        told = f"{conflict.what} {printable(conflict.id)!r} was recorded by {printable(conflict.names)}"
        err.print(told, style="yellow")
    if as_json:
        for producer in found:
            sys.stdout.write(json_line(asdict(producer)))
    elif found:
        out.print(table_of(found), wide=wide)
    if not found:
        err.print("no producer has sent anything", style="yellow")


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
        found += map(_producer, page.rows)
        if page.next is None:
            return found
        after = page.next


def _producer(row: questions_pb2.Producer) -> Producer:
    return Producer(
        row.id,
        row.recorded_by,
        row.highest_sequence,
        _time(row.first_seen_ms),
        _time(row.last_seen_ms),
        row.missing,
        row.refused_rows,
        ", ".join(row.refusal_codes),
    )


def _time(at_ms: int) -> str:
    return show_time(at_ms) if at_ms else ""
