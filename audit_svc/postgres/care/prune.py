"""Pruning of PostgreSQL's ledger. Rows of logs go by a function, since the service's role may not remove any itself."""

from collections.abc import Sequence

from audit_svc.ledger.clock import wall_ms
from audit_svc.sql.care import prune as shared
from audit_svc.sql.writing import Connection, smaller

_LAST = "SELECT coalesce(max(position), 0) FROM {}"
_OLD = "SELECT session_id, recorded_by, engine, model FROM session_usage WHERE latest < ? LIMIT ?"
_FORGET = f"DELETE FROM session_usage WHERE (session_id, recorded_by, engine, model) IN ({_OLD})"  # noqa: S608 - a text of ours


class Prune(shared.Prune):
    """One prune."""

    def _remove(self, connection: Connection, kind: str, positions: Sequence[int]) -> None:
        if not positions:
            return
        removed = connection.execute(
            "SELECT remove_rows(?, ?, ?, ?)", (kind, list(positions), self.by, wall_ms())
        ).fetchall()
        if len(removed) != len(positions):
            raise AssertionError("the database keeps rows that a prune found to be old")

    def _forget_sessions(self, connection: Connection) -> bool:
        calls, requests = (f"({_LAST.format(table)})" for table in ("tool_call_log", "cost_log"))
        connection.execute(
            f"UPDATE session_usage_summed SET tool_calls = {smaller('tool_calls', calls)}, "  # noqa: S608 - names of ours
            f"model_requests = {smaller('model_requests', requests)}"
        )
        connection.execute(_FORGET, (self.before_ms, shared.BATCH_ROWS))
        return connection.changes() == shared.BATCH_ROWS
