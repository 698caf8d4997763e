"""Common queries, which people can read and change."""

# ruff: noqa: S608 - texts of ours are put together
from typing import TypedDict


class Canned(TypedDict):
    """A query as Datasette takes it."""

    title: str
    sql: str


_MOMENT = "CAST(strftime('%s', :since) AS INTEGER) * 1000"
_SINCE = f"created_at >= {_MOMENT}"
_WHEN = "datetime(created_at / 1000, 'unixepoch') AS at"

QUERIES: dict[str, Canned] = {
    "session_timeline": {
        "title": "What a session did",
        "sql": f"SELECT {_WHEN}, recorded_by, 'tool call' AS kind, tool_name AS name, outcome, duration_ms, "
        "args_summary, error FROM tool_call_log WHERE session_id = :session_id UNION ALL "
        f"SELECT {_WHEN}, recorded_by, 'model request', model, NULL, duration_ms, NULL, error "
        "FROM cost_log WHERE session_id = :session_id ORDER BY at",
    },
    "errors": {
        "title": "Calls that failed since a time such as 2026-11-01",
        "sql": f"SELECT {_WHEN}, recorded_by, session_id, engine, tool_name, outcome, error, args_summary "
        f"FROM tool_call_log WHERE error IS NOT NULL AND {_SINCE} ORDER BY created_at DESC",
    },
    "slowest_calls": {
        "title": "The slowest calls since a time",
        "sql": f"SELECT duration_ms, {_WHEN}, session_id, engine, tool_name, args_summary FROM tool_call_log "
        f"WHERE {_SINCE} ORDER BY duration_ms DESC LIMIT 100",
    },
    "cost_by_label": {
        "title": "Cost by the value of a label, such as user, and by model, since a time",
        "sql": "SELECT value, cost_log.model, count(*) AS requests, sum(input_tokens) AS input_tokens, "
        "sum(output_tokens) AS output_tokens, sum(cost_micros) / 1e6 AS usd, "
        "count(*) - count(cost_micros) AS unpriced FROM cost_log "
        "LEFT JOIN session_labels l ON l.session_id = cost_log.session_id AND l.recorded_by = cost_log.recorded_by "
        "AND key = :key "
        f"WHERE {_SINCE} GROUP BY 1, 2 ORDER BY usd DESC",
    },
    "usage_by_engine_and_tool": {
        "title": "Calls by engine, tool and outcome since a day",
        "sql": "SELECT engine, tool_name, outcome, sum(calls) AS calls, sum(errors) AS errors, "
        "sum(nonzero_exits) AS nonzero_exits, sum(http_errors) AS http_errors, "
        "sum(duration_ms) / sum(calls) AS mean_ms FROM tool_call_usage_daily "
        f"WHERE begins_at >= {_MOMENT} GROUP BY 1, 2, 3 ORDER BY calls DESC",
    },
    "producers": {
        "title": "What each gateway has sent, and what never came",
        "sql": "SELECT id, recorded_by, highest_sequence, datetime(last_seen_at / 1000, 'unixepoch') AS last_seen, "
        "(SELECT sum(last_sequence - first_sequence + 1) FROM producer_gaps g "
        "WHERE producer_id = p.id AND g.recorded_by = p.recorded_by) AS missing "
        "FROM producers p WHERE id NOT LIKE 'session/%/%' OR missing ORDER BY last_seen_at DESC",
    },
    "pruned": {
        "title": "What was pruned",
        "sql": "SELECT datetime(pruned_before / 1000, 'unixepoch') AS pruned_before, tool_calls, errors, "
        "model_requests, cost_micros / 1e6 AS usd, sessions, pruned_by FROM pruned ORDER BY id DESC",
    },
}
