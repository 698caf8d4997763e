"""Tool calls: their listing, export and tail. A text in their arguments has an index of its own."""

from onrecord.audit.v1 import questions_pb2

from audit_svc.ledger.pages import Page, call_key
from audit_svc.ledger.protocol import Tail
from audit_svc.ledger.query import Filter, Query
from audit_svc.ledger.records import tool_call_record
from audit_svc.ledger.valid_rows import Values
from audit_svc.sql.database import Database
from audit_svc.sql.read import listing, walks
from audit_svc.sql.read.listing import CALL_NAMES, ROW_RECEIPT, Condition
from audit_svc.sql.read.walks import Log, Plan, Planner, Walk
from service_kit.paging import Position


def list_tool_calls(database: Database, query: Query) -> Page[questions_pb2.ToolCallRecord]:
    """A page of tool calls. It may be short, though another follows."""
    by_text = None
    if query.filter.contains:
        by_text = database.by_text(query, [*_all(query.filter), *listing.time_range(query.filter)])
    return walks.list_rows(database, query, plan_of(database, query.filter), by_text)


def export_tool_calls(
    database: Database, wanted: Filter, after: Position | None, last_position: int, size: int
) -> list[questions_pb2.ToolCallRecord]:
    """The next rows of an export, the oldest first: see ReadableLedger."""
    return walks.export_rows(database, plan_of(database, wanted), wanted, after, last_position, size)


def last_position(database: Database) -> int:
    """The position of the last tool call; 0 when there is none."""
    return walks.last_position(database, _LOG)


def tool_calls_after(database: Database, wanted: Filter, position: int) -> Tail[questions_pb2.ToolCallRecord]:
    """The rows after position: see ReadableLedger."""
    return walks.rows_after(database, _LOG, [*_all(wanted), *listing.time_range(wanted)], position)


def plan_of(database: Database, wanted: Filter) -> Plan:
    """The walk that meets the fewest rows for a filter."""
    others = conditions_of(wanted, database)
    planner = Planner(database.dialect, _LOG, others)
    if plan := planner.shortest(database, wanted):
        return plan
    if unusual := _unusual(wanted):
        return planner.by([Walk("idx_tool_call_log_unusual", [outcome]) for outcome in unusual], "outcomes")
    if wanted.has_error:
        return planner.by([Walk("idx_tool_call_log_failed", others["error"])], "error")
    if "model" in wanted.equal and not {"engine", "tool_name"} <= wanted.equal.keys():
        return planner.by([Walk("idx_tool_call_log_model", others["model"])], "model")
    by_tool = planner.along_pairs(database, wanted, "idx_tool_call_log_tool", ("engine", "tool_name"))
    return by_tool or planner.by([Walk("idx_tool_call_log_created")])


def conditions_of(wanted: Filter, database: Database | None = None) -> dict[str, list[Condition]]:
    """What a filter asks of a tool call, by the name of what it asks for; its times are not among them.

    database: see listing.has_labels().
    """
    return {
        # The text first: few rows have it, and it lies before the other columns.
        "text": listing.contains("args_summary", wanted.contains),
        **walks.conditions_of(wanted, _LOG.table, database),
        "outcomes": _outcomes(wanted),
    }


def _all(wanted: Filter) -> list[Condition]:
    return [part for parts in conditions_of(wanted).values() for part in parts]


def _read(found: Values) -> questions_pb2.ToolCallRecord:
    return tool_call_record(found[: len(ROW_RECEIPT)], found[len(ROW_RECEIPT) :])


def _outcomes(wanted: Filter) -> list[Condition]:
    known = tuple(name for name in wanted.outcomes if name is not None)
    parts = [f"outcome IN ({', '.join('?' * len(known))})"] if known else []
    parts += ["outcome IS NULL"] if None in wanted.outcomes else []
    return [Condition(f"({' OR '.join(parts)})", known)] if parts else []


def _unusual(wanted: Filter) -> list[Condition]:
    """A condition for each outcome, where none is the one that most calls have, or none at all."""
    if None in wanted.outcomes or "succeeded" in wanted.outcomes:
        return []
    return [Condition("outcome = ? AND outcome <> 'succeeded'", (str(name),)) for name in wanted.outcomes]


_LOG = Log("tool_call_log", CALL_NAMES, _read, call_key)
