"""Rebuilds the rollups from the rows, and compares them, in SQL without custom functions.

Migrations that add rollups fill them with the same statements.
"""

from audit_svc.ledger.steps import STEPS
from audit_svc.ledger.usage import MAX_SUMMED
from audit_svc.sql.usage.rollups import HAS_NO_DURATION, REQUEST_SUMS, ROLLUPS
from audit_svc.sqlite.open.connection import Connection, transaction


def rebuild_rollups(connection: Connection) -> None:
    """Rebuilds all rollups from the rows, in one transaction: about a minute for ten million rows."""
    with transaction(connection):
        for rollup in ROLLUPS:
            connection.execute(f"DELETE FROM {rollup.name}")  # noqa: S608 - names of ours
        connection.execute(fill_script("main"))


def rollup_differences(connection: Connection, from_ms: int = 0) -> dict[str, int]:
    """How many rows of each rollup are not what the rows themselves say, of one moment. All are 0 in a sound ledger.

    from_ms: only the periods that begin at this time or later are looked at.

    Writes temporary tables, which a connection to a read-only database can, unless it is set to query_only.
    """
    differences = {}
    connection.execute("BEGIN")
    try:
        for rollup in ROLLUPS:
            connection.execute(f"CREATE TEMP TABLE {rollup.name} AS SELECT * FROM main.{rollup.name} LIMIT 0")  # noqa: S608 - names of ours
        connection.execute(fill_script("temp"))
        for rollup in ROLLUPS:
            kept, true = f"SELECT * FROM main.{rollup.name}", f"SELECT * FROM temp.{rollup.name}"  # noqa: S608 - names of ours
            differing = f"SELECT * FROM ({kept} EXCEPT {true}) UNION ALL SELECT * FROM ({true} EXCEPT {kept})"  # noqa: S608 - names of ours
            keys = connection.execute(
                f"SELECT DISTINCT {', '.join(rollup.key)} FROM ({differing}) WHERE begins_at >= ?",  # noqa: S608 - names of ours
                (from_ms,),
            )
            differences[rollup.name] = len(keys.fetchall())
    finally:
        connection.execute("ROLLBACK")
    return differences


def fill_script(schema: str) -> str:
    """SQL that fills the empty rollups of schema (main or temp)."""
    fills, drops = [], []
    for step in STEPS:
        texts = {"schema": schema, "name": step.name, "ms": step.ms, "made_of": step.made_of}
        texts["has_no_duration"] = HAS_NO_DURATION
        # Counted once from the rows, then from what was counted for a finer step, which is less.
        count = _COUNT_ON if step.made_of else _COUNT_ROWS
        fills += [sql.format(**texts) for sql in (count, _FILL_CALLS, _FILL_REQUESTS)]
        drops.append(f"\nDROP TABLE temp.usage_counted_{step.name}")
    return "".join(f"{sql};\n" for sql in (*fills, *drops))


# How many bits a duration has beyond the five of its bucket. SQLite has no exact logarithm.
_BITS = "\n        + ".join(
    " + ".join(f"(took_ms >= {2**bits})" for bits in range(first, min(first + 6, 36))) for first in range(5, 36, 6)
)

# By period and by bucket of the histogram.
_COUNT_ROWS = f"""
CREATE TEMP TABLE usage_counted_{{name}} AS
SELECT created_at - created_at % {{ms}} AS begins_at, engine, model, tool_name, coalesce(outcome, '') AS outcome,
    16 * bits + (took_ms >> bits) AS bucket, count(*) AS calls, count(error) AS errors,
    count(nullif(exit_code, 0)) AS nonzero_exits, count(*) FILTER (WHERE http_status >= 400) AS http_errors,
    coalesce(sum(min(result_bytes, {MAX_SUMMED})), 0) AS result_bytes, sum(took_ms) AS duration_ms
FROM (
    SELECT *, {_BITS} AS bits
    FROM (SELECT *, min(duration_ms, {MAX_SUMMED}) AS took_ms FROM main.tool_call_log)
)
GROUP BY 1, 2, 3, 4, 5, 6"""  # noqa: S608 - numbers of ours

_COUNT_ON = """
CREATE TEMP TABLE usage_counted_{name} AS
SELECT begins_at - begins_at % {ms} AS begins_at, engine, model, tool_name, outcome, bucket, sum(calls) AS calls,
    sum(errors) AS errors, sum(nonzero_exits) AS nonzero_exits, sum(http_errors) AS http_errors,
    sum(result_bytes) AS result_bytes, sum(duration_ms) AS duration_ms
FROM temp.usage_counted_{made_of}
GROUP BY 1, 2, 3, 4, 5, 6"""

# A histogram is how many bytes a count has, then its buckets' counts in hexadecimal, each followed by the empty ones
# down to the next; empty, x'01', of calls without a duration.
_FILL_CALLS = """
INSERT INTO {schema}.tool_call_usage_{name}
SELECT begins_at, engine, model, tool_name, outcome, sum(calls), sum(errors), sum(nonzero_exits), sum(http_errors),
    sum(result_bytes), sum(duration_ms), CASE WHEN {has_no_duration} THEN x'01'
    ELSE unhex(format('%02x', width) || group_concat(lanes, '' ORDER BY bucket DESC)) END
FROM (
    SELECT *, format('%0*x', 2 * width, calls) || hex(zeroblob(width * (bucket - 1 - lag(bucket, 1, -1) OVER (
        PARTITION BY begins_at, engine, model, tool_name, outcome ORDER BY bucket
    )))) AS lanes
    FROM (
        SELECT *, CASE WHEN most < 256 THEN 1 WHEN most < 65536 THEN 2 ELSE 5 END AS width
        FROM (
            SELECT *, max(calls) OVER (PARTITION BY begins_at, engine, model, tool_name, outcome) AS most
            FROM temp.usage_counted_{name}
        )
    )
)
GROUP BY begins_at, engine, model, tool_name, outcome"""

_CAPPED = ",\n    ".join(f"sum(min({name}, {MAX_SUMMED}))" for name in REQUEST_SUMS[2:-2])
_FILL_REQUESTS = f"""
INSERT INTO {{schema}}.request_usage_{{name}}
SELECT created_at - created_at % {{ms}}, engine, model, count(*), count(error),
    {_CAPPED},
    coalesce(sum(min(cost_micros, {MAX_SUMMED})), 0), count(*) - count(cost_micros)
FROM main.cost_log
GROUP BY 1, 2, 3"""  # noqa: S608 - names of ours
