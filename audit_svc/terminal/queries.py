"""Queries: calls, requests, errors, sessions, show, usage, controls, queries."""

import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from typing import Annotated, Any, Literal

from google.protobuf.message import Message
from onrecord.audit.v1 import questions_pb2
from onrecord.common.v1 import common_pb2

from audit_svc.errors import InvalidRequest
from audit_svc.ledger.groups import DIMENSIONS, LABEL, check_groups
from audit_svc.terminal import rows
from audit_svc.terminal.client import (
    PAGE,
    PAGE_SECONDS,
    Client,
    all_rows,
    connect,
    listed,
    named_session,
    refuse_unknown,
    say_nothing_matches,
)
from audit_svc.terminal.last_turn import reason_of
from audit_svc.terminal.options import (
    Agent,
    Calls,
    Contains,
    Engine,
    Labels,
    Limit,
    Listing,
    Model,
    OutcomesOfSome,
    Principal,
    RecentTimes,
    RecordedBy,
    Requests,
    SessionId,
    Source,
    Suspect,
    Times,
    ToolOfSome,
    kind_values,
    label_values,
    outcome_values,
    status_values,
)
from audit_svc.terminal.plain import json_line, print_json, to_dict
from audit_svc.terminal.running import Json, err, out, progress
from audit_svc.terminal.stopped import controls_of, what_lifts_them
from audit_svc.terminal.timeline import Timeline
from audit_svc.terminal.usage_table import usage_table
from service_kit.printable import printable
from service_kit.terminal.command import BadParameter, Filter, Option
from service_kit.terminal.hints import meant
from service_kit.terminal.printing import Table, Text, Wide

MAX_SESSIONS = 10_000
"""Failed sessions that are looked through for those that failed last."""


def calls(
    calls: Calls,
    times: Times,
    listing: Listing,
    source: Source,
    label: Labels = None,
    contains: Contains = "",
    clock_suspect: Suspect = False,
) -> None:
    """List tool calls, the newest first."""
    calls.session = named_session(source, calls.session, "--session")
    wanted = questions_pb2.ToolCallFilter(
        **calls.fields(),
        **times.fields(),
        labels=label_values(label),
        args_contain=contains,
        clock_suspect=True if clock_suspect else None,
    )
    request = questions_pb2.ListToolCallsRequest(filter=wanted)
    _list(source, "ListToolCalls", request, "tool_calls", listing, rows.calls_table, times, calls)


def requests(
    requests: Requests,
    times: Times,
    listing: Listing,
    source: Source,
    label: Labels = None,
    failed: Annotated[bool, Option("--errors", help="Only requests that failed.")] = False,
) -> None:
    """List requests to models, the newest first."""
    requests.session = named_session(source, requests.session, "--session")
    wanted = questions_pb2.ModelRequestFilter(
        **requests.fields(), **times.fields(), labels=label_values(label), has_error=True if failed else None
    )
    request = questions_pb2.ListModelRequestsRequest(filter=wanted)
    _list(source, "ListModelRequests", request, "model_requests", listing, rows.requests_table, times, requests)


def errors(calls: Calls, times: RecentTimes, listing: Listing, source: Source) -> None:
    """List what failed, the newest first, with the reason: tool calls, model requests, sessions' last turns."""
    calls.session = named_session(source, calls.session, "--session")
    with connect(source) as client, progress("asking") as tell:
        found = list(failures_of(client, calls, times, listing.limit + 1, tell))
        if not found:
            refuse_unknown(client, calls)
        found.sort(key=rows.failed_at, reverse=True)
        shown = found[: listing.limit]
        if listing.as_json:
            for record in shown:
                sys.stdout.write(json_line({"kind": rows.kind_of(record)} | to_dict(record)))
        elif shown:
            failures = [rows.failure_of(record, partial(reason_of, client)) for record in shown]
            out.print(rows.errors_table(failures), wide=listing.wide)
            rules = [one.tool_call.decision.rule for one in shown if rows.kind_of(one) == "tool_call"]
            _say_what_lifts(client, [*rules, *(failure.reason for failure in failures)])
        if not shown:
            say_nothing_matches(times)
    _say_if_more(are_more=len(found) > listing.limit)


def failures_of(
    client: Client, calls: Calls, times: Times, limit: int, tell: Callable[[int, int], None]
) -> Iterator[Any]:
    """What failed of each kind, up to limit of it. What asks for tool calls alone gets no other."""
    within = times.fields()
    wanted = questions_pb2.ToolCallFilter(**calls.fields(), **within, has_error=True)
    of_calls = questions_pb2.ListToolCallsRequest(filter=wanted)
    yield from all_rows(client, "ListToolCalls", of_calls, "tool_calls", limit, tell)
    if any(calls.of_calls().values()):
        return
    same = Requests.fields(calls)
    of_requests = questions_pb2.ListModelRequestsRequest(
        filter=questions_pb2.ModelRequestFilter(**same, **within, has_error=True)
    )
    yield from all_rows(client, "ListModelRequests", of_requests, "model_requests", limit, tell)
    if calls.turn or calls.principal or calls.agent:  # of which a session's row says nothing
        return
    of_sessions = questions_pb2.ListSessionRecordsRequest(
        filter=questions_pb2.SessionFilter(
            id=calls.session,
            engine=calls.engine,
            model=calls.model,
            recorded_by=calls.recorded_by,
            statuses=[common_pb2.SESSION_STATUS_FAILED],
            updated_from_ms=within["created_from_ms"],
            updated_before_ms=within["created_before_ms"],
        )
    )
    # In the order of their beginnings: the one that failed last may be any.
    yield from all_rows(client, "ListSessionRecords", of_sessions, "sessions", max(limit, MAX_SESSIONS), tell)


def sessions(
    times: Times,
    listing: Listing,
    source: Source,
    engine: Engine = "",
    model: Model = "",
    status: Annotated[
        list[str] | None, Option(help="Only running, idle, failed or cancelled ones; may be repeated.")
    ] = None,
    label: Labels = None,
    recorded_by: RecordedBy = None,
    principal: Principal = "",
    agent: Agent = "",
    tool: ToolOfSome = "",
    outcome: OutcomesOfSome = None,
) -> None:
    """List sessions, the newest first."""
    wanted = questions_pb2.SessionFilter(
        **times.fields(),
        engine=engine,
        model=model,
        statuses=status_values(status),
        labels=label_values(label),
        recorded_by=recorded_by,
        principal=principal,
        agent_name=agent,
        tool_name=tool,
        outcomes=outcome_values(outcome),
    )
    request = questions_pb2.ListSessionRecordsRequest(filter=wanted)
    found = _list(source, "ListSessionRecords", request, "sessions", listing, rows.sessions_table, times)
    if not listing.as_json and any(rows.is_uncounted(record.session) for record in found):
        err.print("of a running session the last turn is not counted yet", style="dim")


def show(
    session: SessionId,
    source: Source,
    recorded_by: RecordedBy = None,
    as_json: Json = False,
    wide: Annotated[bool, Option("--wide", help="Show the whole of each line, with the id of its row.")] = False,
) -> None:
    """Show what happened in a session, from its beginning to its end."""
    key = questions_pb2.RowKey(id=named_session(source, session), recorded_by=recorded_by)
    request = questions_pb2.GetSessionRecordRequest(session=key, page_size=PAGE)
    timeline = None
    with connect(source) as client:
        while timeline is None or request.page_token:
            page = client.call("GetSessionRecord", request, PAGE_SECONDS)
            if timeline is None:
                controls = [] if as_json else controls_of(client, page.session)
                timeline = Timeline(page.session, controls, with_ids=wide)
                _print_json([page.session]) if as_json else _print_lines(timeline.heading(), wide=wide)
            _print_json(page.entries) if as_json else _print_lines(timeline.lines(page.entries), wide=wide)
            sys.stdout.flush()
            request.page_token = page.next_page_token
        if not as_json:
            _print_lines(timeline.end(), wide=wide)
            _say_what_lifts(client, timeline.stops)


def usage(
    calls: Calls,
    times: RecentTimes,
    source: Source,
    by: Annotated[
        list[str] | None,
        Option(
            help="Groups, such as session,tool: session, recorded_by, principal, agent, source, mcp_server, engine, "
            "model, tool, outcome, hour, day or a label's key; may be repeated. [default: engine,tool]"
        ),
    ] = None,
    label: Labels = None,
    order: Annotated[
        Literal["value", "cost"], Option(help="Which groups come first: by their values, or those that cost most.")
    ] = "value",
    limit: Limit = 1000,
    as_json: Json = False,
    wide: Wide = False,
) -> None:
    """Count tool calls, model requests, tokens and money in groups."""
    names = [name.strip() for names in by or ["engine,tool"] for name in names.split(",") if name.strip()]
    if not names:
        raise BadParameter("is empty: name a group, or leave it out", param_hint="--by")
    group_by = [name if name in DIMENSIONS or name.startswith(LABEL) else LABEL + name for name in names]
    try:
        check_groups(group_by)
    except InvalidRequest as error:
        raise BadParameter(str(error).removeprefix("group_by "), param_hint="--by") from None
    calls.session = named_session(source, calls.session, "--session")
    wanted = questions_pb2.ToolCallFilter(**calls.fields(), **times.fields(), labels=label_values(label))
    first = questions_pb2.USAGE_ORDER_COST if order == "cost" else questions_pb2.USAGE_ORDER_UNSPECIFIED
    request = questions_pb2.SummarizeUsageRequest(filter=wanted, group_by=group_by, order=first)
    listing = Listing(limit=limit, as_json=as_json, wide=wide)
    found = _list(source, "SummarizeUsage", request, "groups", listing, partial(usage_table, names), times, calls)
    are_all = bool(found) and not request.page_token  # else one that is not shown may have the label
    for at, name in enumerate(names):
        if name not in DIMENSIONS and are_all and not any(group.values[at] for group in found):
            label_key = name.removeprefix(LABEL)
            is_named = label_key in DIMENSIONS
            hint = f": to group by {label_key}, leave out {LABEL!r}" if is_named else meant(label_key, DIMENSIONS)
            err.print(f"no session of these has a label {printable(label_key)!r}{hint}", style="yellow")


def controls(
    times: Times,
    listing: Listing,
    source: Source,
    kind: Annotated[list[str] | None, Option(help="Only stop, resume or rules_loaded; may be repeated.")] = None,
    principal: Annotated[str, Filter(help="Only acts of this caller.")] = "",
    recorded_by: RecordedBy = None,
) -> None:
    """List stops, resumes and rules that came into force, the newest first."""
    wanted = questions_pb2.ControlFilter(
        **times.fields(), kinds=kind_values(kind), principal=principal, recorded_by=recorded_by
    )
    request = questions_pb2.ListControlsRequest(filter=wanted)
    _list(source, "ListControls", request, "controls", listing, rows.controls_table, times)


def queries(
    times: Times,
    listing: Listing,
    source: Source,
    caller: Annotated[str, Filter(help="Only this caller's.")] = "",
    method: Annotated[str, Filter(help="Only this RPC's, such as ListToolCalls.")] = "",
) -> None:
    """List who asked the ledger what, the newest first."""
    from onrecord.audit.v1 import administration_pb2  # no other of these commands needs it

    request = administration_pb2.ListQueriesRequest(**times.fields(), caller=caller, method=method)
    _list(source, "ListQueries", request, "queries", listing, rows.queries_table, times)


def _list(
    source: Source,
    rpc: str,
    request: Any,
    field: str,
    listing: Listing,
    table: Callable[[list[Any]], Table],
    times: Times,
    asked: Requests | None = None,
) -> list[Any]:
    """Prints what listed() finds, and says whether there is more."""
    found = listed(source, rpc, request, field, listing.limit, asked)
    _print(listing, found, table, times)
    _say_if_more(are_more=bool(request.page_token))
    return found


def _say_what_lifts(client: Client, texts: Collection[str]) -> None:
    for sentence in what_lifts_them(client, texts):
        err.print(sentence, style="yellow")


def _say_if_more(*, are_more: bool) -> None:
    if are_more:
        err.print("there are more: --limit shows them", style="dim")


def _print(listing: Listing, found: list[Any], table: Callable[[list[Any]], Table], times: Times) -> None:
    if listing.as_json:
        _print_json(found)
    elif found:
        out.print(table(found), wide=listing.wide)
    if not found:
        say_nothing_matches(times)


def _print_lines(lines: Iterable[Text], *, wide: bool) -> None:
    for line in lines:
        out.print(line, wide=wide, cut=True)


def _print_json(messages: Iterable[Message] | Iterable[Any]) -> None:
    for message in messages:
        print_json(message)
