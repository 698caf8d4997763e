"""Model requests: their listing, export and tail."""

from onrecord.audit.v1 import questions_pb2

from audit_svc.ledger.pages import Page, request_key
from audit_svc.ledger.protocol import Tail
from audit_svc.ledger.query import Filter, Query
from audit_svc.ledger.records import model_request_record
from audit_svc.ledger.tables import COST_COLUMNS
from audit_svc.ledger.valid_rows import Values
from audit_svc.sql.database import Database
from audit_svc.sql.read import listing, walks
from audit_svc.sql.read.listing import ROW_RECEIPT
from audit_svc.sql.read.walks import Log, Plan, Planner, Walk
from service_kit.paging import Position


def list_model_requests(database: Database, query: Query) -> Page[questions_pb2.ModelRequestRecord]:
    """A page of model requests. It may be short, though another follows."""
    return walks.list_rows(database, query, plan_of(database, query.filter))


def export_model_requests(
    database: Database, wanted: Filter, after: Position | None, last_position: int, size: int
) -> list[questions_pb2.ModelRequestRecord]:
    """The next rows of an export, the oldest first: see ReadableLedger."""
    return walks.export_rows(database, plan_of(database, wanted), wanted, after, last_position, size)


def last_position(database: Database) -> int:
    """The position of the last model request; 0 when there is none."""
    return walks.last_position(database, _LOG)


def model_requests_after(database: Database, wanted: Filter, position: int) -> Tail[questions_pb2.ModelRequestRecord]:
    """The rows after position: see ReadableLedger."""
    conditions = [part for parts in walks.conditions_of(wanted, _LOG.table).values() for part in parts]
    return walks.rows_after(database, _LOG, [*conditions, *listing.time_range(wanted)], position)


def plan_of(database: Database, wanted: Filter) -> Plan:
    """The walk that meets the fewest rows for a filter."""
    others = walks.conditions_of(wanted, _LOG.table, database)
    planner = Planner(database.dialect, _LOG, others)
    if plan := planner.shortest(database, wanted):
        return plan
    if wanted.has_error:
        return planner.by([Walk("idx_cost_log_failed", others["error"])], "error")
    by_model = planner.along_pairs(database, wanted, "idx_cost_log_model", ("engine", "model"))
    return by_model or planner.by([Walk("idx_cost_log_created")])


def _read(found: Values) -> questions_pb2.ModelRequestRecord:
    return model_request_record(found[: len(ROW_RECEIPT)], found[len(ROW_RECEIPT) :])


_LOG = Log("cost_log", [*ROW_RECEIPT, *(column.name for column in COST_COLUMNS)], _read, request_key)
