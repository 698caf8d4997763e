"""The charts, as a plugin of Datasette."""

import time
from typing import Any

from datasette import hookimpl
from datasette.database import QueryInterrupted
from datasette.utils.asgi import BadRequest, NotFound, Response

from audit_svc.ui import charts, figures
from audit_svc.ui.canned import QUERIES, Canned

DATABASE = "ledger"
CHARTS = "/-/ledger"
SESSION = "/-/ledger/session"
MAX_DAYS = 3660
SQLITE_LIMIT_LENGTH = 0
MAX_TEXT_BYTES = 100_000
"""Of one value or row that a query makes: a page has a thousand rows."""


@hookimpl
def canned_queries(database: str) -> dict[str, Canned]:
    """The questions of audit_svc.ui.canned."""
    return QUERIES if database == DATABASE else {}


@hookimpl
def menu_links() -> list[dict[str, str]]:
    """The way to the charts."""
    return [{"href": CHARTS, "label": "Charts"}, {"href": f"/{DATABASE}", "label": "Tables and queries"}]


@hookimpl
def prepare_connection(conn: Any, database: str) -> None:
    """Makes a connection that is read-only refuse writes in SQLite too, and texts longer than any that it holds."""
    if database == DATABASE:
        conn.setlimit(SQLITE_LIMIT_LENGTH, MAX_TEXT_BYTES)
        conn.execute("PRAGMA query_only = 1")


@hookimpl
def register_routes() -> list[tuple[str, Any]]:
    """The charts and a session's timeline."""
    return [(f"^{CHARTS}$", show_charts), (f"^{SESSION}$", show_session)]


async def show_charts(request: Any, datasette: Any) -> Any:
    """Charts of the last days."""
    days = _number(request.args.get("days") or "7")
    ledger = datasette.get_database(DATABASE)
    until_ms = time.time_ns() // 1_000_000
    from_ms = until_ms - days * figures.DAY_MS
    try:
        keys = await figures.label_keys(ledger)
        key = request.args.get("label") or next(iter(keys), "user")
        calls, errors = await figures.calls_and_errors(ledger, from_ms, until_ms)
        cost = await figures.cost_by_label(ledger, key, from_ms, until_ms)
        latencies = await figures.latencies(ledger, from_ms, until_ms)
    except QueryInterrupted:
        raise BadRequest("this took too long: choose fewer days") from None
    drawn = [
        (calls, charts.svg(calls, "stacked")),
        (errors, charts.svg(errors, "stacked")),
        (cost, charts.svg(cost, "stacked")),
        (latencies, charts.svg(latencies, "side by side")),
    ]
    context = {"days": days, "label": key, "labels": keys, "charts": drawn, "queries": QUERIES, "database": DATABASE}
    return Response.html(await datasette.render_template("ledger_charts.html", context, request=request))


async def show_session(request: Any, datasette: Any) -> Any:
    """What a session did, as bars."""
    session_id = request.args.get("id") or ""
    entries = await figures.timeline(datasette.get_database(DATABASE), session_id)
    if not entries:
        raise NotFound("the ledger has nothing of a session with this id")
    context = {"session_id": session_id, "chart": charts.timeline_chart(entries), "limit": figures.MAX_ENTRIES}
    return Response.html(await datasette.render_template("ledger_session.html", context, request=request))


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MAX_DAYS:
        raise BadRequest(f"days is a number from 1 to {MAX_DAYS}")
    return int(text)
