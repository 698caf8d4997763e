"""What the rows of each session say, so that sessions are found by persons, agents, tools and outcomes.

session_traits (migration 0023) has each value of a session once. It follows the rows as the sums of sessions do, up to
the same positions: a question looks at the rows after them too. What a prune removed of a session that is still there
stays among its traits.
"""

from collections.abc import Sequence

from audit_svc.errors import InvalidRequest
from audit_svc.ledger.query import Filter
from audit_svc.sql.database import Connection, Database
from audit_svc.sql.read.listing import Condition
from audit_svc.sql.usage.usage_tables import Kind

OF_CALLS = ("principal", "agent", "tool_name", "outcome")
OF_REQUESTS = OF_CALLS[:2]
NAMES = {"tool_calls": OF_CALLS, "model_requests": OF_REQUESTS}
TABLES = {"tool_calls": "tool_call_log", "model_requests": "cost_log"}
FEW_SESSIONS = 10_000
"""As many sessions with a trait are looked up one by one, in some tens of milliseconds; more are met on the way through
all sessions soon enough."""


def sum_traits(connection: Connection, kind: Kind, first: int, last: int) -> None:
    """Adds what the rows behind the position first say, up to last, in the open transaction."""
    for name in NAMES[kind.summed]:
        connection.execute(
            "INSERT INTO session_traits (session_id, recorded_by, name, value) "  # noqa: S608 - names of ours
            f"SELECT DISTINCT session_id, recorded_by, ?, {name} FROM {kind.rows.name} NOT INDEXED "
            f"WHERE position > ? AND position <= ? AND {name} <> '' ON CONFLICT DO NOTHING",
            (name, first, last),
        )


def with_trait(database: Database, name: str, values: Sequence[str]) -> tuple[Condition, bool]:
    """That a session has a row with one of values; and whether such sessions are so few that each is looked up."""
    any_of = f"name = ? AND value IN ({', '.join('?' * len(values))})"
    found = "SELECT {} FROM session_traits INDEXED BY idx_session_traits_value WHERE " + any_of  # noqa: S608 - names of ours
    counted = f"SELECT count(*) FROM ({found.format('1')} LIMIT ?) AS found"  # noqa: S608 - names of ours
    ((few,),) = database.execute(counted, (name, *values, FEW_SESSIONS + 1))
    parts, arguments = [], list[str | int | None]()
    ((*summed,),) = database.execute("SELECT tool_calls, model_requests FROM session_usage_summed")
    for (kind, table), last in zip(TABLES.items(), summed, strict=True):
        if name in NAMES[kind]:
            of_rows = f"{name} IN ({', '.join('?' * len(values))})"
            parts.append(f"SELECT session_id, recorded_by FROM {table} NOT INDEXED WHERE position > ? AND {of_rows}")  # noqa: S608 - names of ours
            arguments += [last, *values]
    later = " UNION ALL ".join(parts)
    if few <= FEW_SESSIONS:
        summed_ones = found.format("session_id, recorded_by")
        sql = f"(id, recorded_by) IN ({summed_ones} UNION ALL {later})"
        return Condition(sql, (name, *values, *arguments)), True
    of_session = f"session_id = sessions.id AND recorded_by = sessions.recorded_by AND {any_of}"
    # A value and no EXISTS, which SQLite may make the outer loop of a join, in another order than the listing's.
    has = f"(SELECT max(1) FROM session_traits WHERE {of_session}) = 1"  # noqa: S608 - names of ours
    return Condition(f"({has} OR (id, recorded_by) IN ({later}))", (name, *values, *arguments)), False


def traits_of(wanted: Filter) -> dict[str, list[str]]:
    """What a filter asks of the rows of sessions: of each name the values, one of which some row must have.

    Raises:
        InvalidRequest: it asks for calls without an outcome.
    """
    if None in wanted.outcomes:
        raise InvalidRequest("outcomes has OUTCOME_UNSPECIFIED: say how a call ended", "filter.outcomes")
    found = {name: [wanted.equal[name]] for name in OF_CALLS if name in wanted.equal}
    return found | ({"outcome": [name for name in wanted.outcomes if name]} if wanted.outcomes else {})
