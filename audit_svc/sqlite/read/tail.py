"""Tool calls in the order of their commits."""

from audit_svc.ledger.protocol import TAIL_ROWS, Tail
from audit_svc.ledger.query import Filter
from audit_svc.sqlite.open.connection import Connection
from audit_svc.sqlite.read import listing
from audit_svc.sqlite.read.listing import CALL_COLUMNS, CALL_NAMES, Condition, Statement
from audit_svc.sqlite.read.tool_calls import conditions_of, read_call
from service_kit.paging import MAX_PAGE_BYTES

# No index may take the walk away from the order of the commits.
_SELECT = f"SELECT {CALL_COLUMNS} FROM tool_call_log NOT INDEXED"  # noqa: S608 - names of ours


def last_position(connection: Connection) -> int:
    """The position of the last tool call; 0 when there is none."""
    ((position,),) = connection.execute("SELECT coalesce(max(position), 0) FROM tool_call_log")
    return int(position)


def tool_calls_after(connection: Connection, wanted: Filter, position: int) -> Tail:
    """The rows after position: up to TAIL_ROWS of them are read, or as many as fit in one message."""
    last = last_position(connection)
    upto = min(last, position + TAIL_ROWS)
    if upto <= position:
        return Tail([], position, last)
    within = Condition("position > ? AND position <= ?", (position, upto))
    conditions = [part for parts in conditions_of(wanted).values() for part in parts]
    sql, arguments = listing.select(_SELECT, [within, *conditions, *listing.time_range(wanted)])
    statement = Statement(f"{sql} ORDER BY position LIMIT {TAIL_ROWS}", arguments)
    tail = Tail([], upto, last)
    size_bytes = 0
    for found in listing.fetch(connection, CALL_NAMES, statement):
        tail.rows.append(read_call(found))
        size_bytes += tail.rows[-1].ByteSize()
        if size_bytes > MAX_PAGE_BYTES:
            return Tail(tail.rows, tail.rows[-1].receipt.position, last)
    return tail
