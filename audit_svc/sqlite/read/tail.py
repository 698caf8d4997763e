"""Tool calls in the order of their commits. In SQLite the position of a row is its rowid."""

from audit_svc.ledger.batch import TOOL_CALL_COLUMNS, tool_call_row
from audit_svc.ledger.pages import MAX_PAGE_BYTES
from audit_svc.ledger.protocol import TAIL_ROWS, Tail
from audit_svc.ledger.query import Filter
from audit_svc.sqlite.open.connection import Connection
from audit_svc.sqlite.read import listing
from audit_svc.sqlite.read.listing import Condition, Statement

_COLUMNS = ["rowid", *(column.name for column in TOOL_CALL_COLUMNS)]
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM tool_call_log"  # noqa: S608 - names of ours


def last_position(connection: Connection) -> int:
    """The position of the last tool call; 0 when there is none."""
    ((position,),) = connection.execute("SELECT coalesce(max(rowid), 0) FROM tool_call_log")
    return int(position)


def tool_calls_after(connection: Connection, wanted: Filter, position: int) -> Tail:
    """The rows after position: up to TAIL_ROWS of them are read, or as many as fit in one message."""
    last = last_position(connection)
    upto = min(last, position + TAIL_ROWS)
    if upto <= position:
        return Tail([], position, last)
    within = Condition("rowid > ? AND rowid <= ?", (position, upto))
    sql, arguments = listing.select(_SELECT, [within, *_conditions(wanted)])
    statement = Statement(f"{sql} ORDER BY rowid LIMIT {TAIL_ROWS}", arguments)
    tail = Tail([], upto, last)
    size_bytes = 0
    for number, *values in listing.fetch(connection, _COLUMNS, statement):
        tail.rows.append(tool_call_row(values))
        size_bytes += tail.rows[-1].ByteSize()
        if size_bytes > MAX_PAGE_BYTES:
            return Tail(tail.rows, int(number), last)
    return tail


def _conditions(wanted: Filter) -> list[Condition]:
    # With a plus, so that no index takes the walk away from the order of the commits.
    conditions = [Condition(f"+{name} = ?", (value,)) for name, value in wanted.equal.items()]
    conditions += [Condition("+error IS NOT NULL")] if wanted.errors_only else []
    if wanted.outcomes:
        names = [name or "" for name in wanted.outcomes]
        conditions.append(Condition(f"coalesce(outcome, '') IN ({', '.join('?' * len(names))})", tuple(names)))
    return conditions
