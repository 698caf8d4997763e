"""Queries: calls, errors, sessions, show, usage, queries."""

import sys
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from google.protobuf.message import Message
from onrecord.audit.v1 import audit_pb2
from rich.text import Text

from audit_svc.terminal import rows
from audit_svc.terminal.client import PAGE, PAGE_SECONDS, Client, ask
from audit_svc.terminal.options import (
    DEFAULT_TARGET,
    Contains,
    Db,
    Engine,
    Labels,
    Limit,
    Model,
    Outcomes,
    Session,
    Since,
    Target,
    Tool,
    Until,
    call_filter,
    label_values,
    outcome_values,
    status_value,
    time_ms,
)
from audit_svc.terminal.plain import print_json, printable
from audit_svc.terminal.running import Json, err, out

DIMENSIONS = {"session", "engine", "model", "tool", "outcome", "hour", "day"}


def add_commands(app: typer.Typer) -> None:
    """Adds the commands of this module to app."""
    for command in (calls, errors, sessions, show, usage, queries):
        app.command()(command)


def calls(
    session: Session = "",
    engine: Engine = "",
    model: Model = "",
    tool: Tool = "",
    outcome: Outcomes = None,
    label: Labels = None,
    contains: Contains = "",
    since: Since = "",
    until: Until = "",
    limit: Limit = 50,
    as_json: Json = False,
    target: Target = DEFAULT_TARGET,
    db: Db = None,
) -> None:
    """List tool calls, the newest first."""
    request = call_filter(session, engine, model, tool, outcome, label, contains, since, until)
    found = ask(target, db, lambda client: client.pages("ListToolCalls", request, "rows", limit))
    _print_all(found) if as_json else out.print(rows.calls_table(found))


def errors(
    session: Session = "",
    engine: Engine = "",
    tool: Tool = "",
    since: Since = "7d",
    limit: Limit = 50,
    as_json: Json = False,
    target: Target = DEFAULT_TARGET,
    db: Db = None,
) -> None:
    """List the tool calls that failed, the newest first, with the reason."""
    request = audit_pb2.ListToolCallsRequest(
        session_id=session,
        engine=engine,
        tool_name=tool,
        errors_only=True,
        created_from_ms=time_ms(since, "--since"),
    )
    found = ask(target, db, lambda client: client.pages("ListToolCalls", request, "rows", limit))
    _print_all(found) if as_json else out.print(rows.calls_table(found, errors=True))


def sessions(
    engine: Engine = "",
    model: Model = "",
    status: Annotated[str, typer.Option(help="Only running, idle, failed or cancelled ones.")] = "",
    label: Labels = None,
    since: Since = "",
    until: Until = "",
    limit: Limit = 50,
    as_json: Json = False,
    target: Target = DEFAULT_TARGET,
    db: Db = None,
) -> None:
    """List sessions, the newest first."""
    request = audit_pb2.ListSessionsRequest(
        engine=engine,
        model=model,
        status=status_value(status),
        labels=label_values(label),
        created_from_ms=time_ms(since, "--since"),
        created_before_ms=time_ms(until, "--until"),
    )

    found = ask(target, db, lambda client: client.pages("ListSessions", request, "sessions", limit))
    _print_all(found) if as_json else out.print(rows.sessions_table(found))


def show(
    session: Annotated[str, typer.Argument(help="The session's id.")],
    as_json: Json = False,
    target: Target = DEFAULT_TARGET,
    db: Db = None,
) -> None:
    """Show what happened in a session, from its begin to its end."""

    async def work(client: Client) -> None:
        request = audit_pb2.GetSessionRequest(session_id=session, page_size=PAGE)
        timeline = None
        while timeline is None or request.page_token:
            page = await client.call("GetSession", request, PAGE_SECONDS)
            if timeline is None:
                timeline = rows.Timeline(page.session)
                _print_all([page.session]) if as_json else _print_lines(timeline.heading())
            _print_all(page.timeline) if as_json else _print_lines(timeline.lines(page.timeline))
            sys.stdout.flush()
            request.page_token = page.next_page_token

    ask(target, db, work)


def usage(
    by: Annotated[
        str,
        typer.Option(
            help="Groups, such as engine,tool: session, engine, model, tool, outcome, hour, day or a label's key."
        ),
    ] = "engine,tool",
    session: Session = "",
    engine: Engine = "",
    model: Model = "",
    tool: Tool = "",
    outcome: Outcomes = None,
    label: Labels = None,
    since: Since = "7d",
    until: Until = "",
    limit: Limit = 1000,
    as_json: Json = False,
    target: Target = DEFAULT_TARGET,
    db: Db = None,
) -> None:
    """Count calls, requests, tokens and money in groups."""
    names = [name.strip() for name in by.split(",") if name.strip()]
    request = audit_pb2.SummarizeUsageRequest(
        group_by=[name if name in DIMENSIONS or name.startswith("label:") else f"label:{name}" for name in names],
        session_id=session,
        engine=engine,
        model=model,
        tool_name=tool,
        outcomes=outcome_values(outcome),
        labels=label_values(label),
        created_from_ms=time_ms(since, "--since"),
        created_before_ms=time_ms(until, "--until"),
    )

    found = ask(target, db, lambda client: client.pages("SummarizeUsage", request, "rows", limit))
    _print_all(found) if as_json else out.print(rows.usage_table(names, found))
    for at, name in enumerate(names):
        if name not in DIMENSIONS and found and not any(row.group[at] for row in found):
            err.print(f"no session of these has a label {printable(name)!r}", style="yellow")


def queries(
    caller: Annotated[str, typer.Option(help="Only this caller's.")] = "",
    method: Annotated[str, typer.Option(help="Only this RPC's, such as ListToolCalls.")] = "",
    since: Since = "",
    until: Until = "",
    limit: Limit = 50,
    as_json: Json = False,
    target: Target = DEFAULT_TARGET,
    db: Db = None,
) -> None:
    """List who asked the ledger what, the newest first."""
    request = audit_pb2.ListQueriesRequest(
        caller=caller,
        method=method,
        created_from_ms=time_ms(since, "--since"),
        created_before_ms=time_ms(until, "--until"),
    )

    found = ask(target, db, lambda client: client.pages("ListQueries", request, "queries", limit))
    _print_all(found) if as_json else out.print(rows.queries_table(found))


def _print_lines(lines: Iterable[Text]) -> None:
    if found := list(lines):
        out.print(Text("\n").join(found))


def _print_all(messages: Iterable[Message] | Iterable[Any]) -> None:
    for message in messages:
        print_json(message)
