"""Tables of rows on a terminal, one row per line, and the words for what a row says."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from onrecord.audit.v1 import audit_pb2, questions_pb2
from onrecord.common.v1 import common_pb2

from audit_svc.terminal.plain import enum_name, money
from audit_svc.terminal.running import out, size
from recording.durations import OF_OTHERS, known_duration_ms
from service_kit.printable import printable
from service_kit.terminal import outcomes
from service_kit.terminal.failures import as_typed
from service_kit.terminal.printing import Table, Text, duration

if TYPE_CHECKING:
    from onrecord.audit.v1 import administration_pb2


def outcome_of(row: audit_pb2.AuditRow) -> str:
    """How a call ended."""
    return enum_name(row.DESCRIPTOR.fields_by_name["outcome"], row.outcome)


def outcome_text(row: audit_pb2.AuditRow) -> Text:
    """How a call ended, with the code or status that it ended with."""
    exit_code = row.exit_code if row.HasField("exit_code") else None
    http_status = row.http_status if row.HasField("http_status") else None
    return outcomes.outcome_text(outcome_of(row), exit_code, http_status)


def took(row: audit_pb2.AuditRow | audit_pb2.CostRow, about: str = "") -> str:
    """How long a call's tool ran, or a model request. about: said before a call's time that was only observed."""
    if isinstance(row, audit_pb2.CostRow):
        return duration(None if row.source in OF_OTHERS and not row.duration_ms else row.duration_ms)
    known = known_duration_ms(row.outcome, row.duration_ms, row.source)
    return (about if row.times_observed and known is not None else "") + duration(known)


def calls_table(records: Sequence[questions_pb2.ToolCallRecord]) -> Table:
    """Tool calls, one per line."""
    by, last = _recorded_by(records), "arguments"
    table = Table(
        "began",
        *by,
        "session",
        "engine",
        "model",
        "tool",
        "outcome",
        "took",
        "result",
        "id",
        last,
        least=("id", "result", "model", "engine", *by, "took", last),
        text=last,
        ids=["session", "id"],
    )
    for record in records:
        row = record.tool_call
        table.add_row(
            out.print_time(row.created_at_ms),
            *(printable(record.receipt.recorded_by) for _ in by),
            printable(row.session_id),
            printable(row.engine),
            printable(row.model),
            printable(row.tool_name),
            outcome_text(row),
            took(row),
            size_of(row),
            printable(row.id),
            printable(row.args_summary),
        )
    return table


def requests_table(records: Sequence[questions_pb2.ModelRequestRecord]) -> Table:
    """Model requests, one per line."""
    by = _recorded_by(records)
    columns = ("began", *by, "session", "engine", "model", "tokens in/out", "cost", "took", "id", "error")
    table = Table(
        *columns,
        least=("id", "tokens in/out", *by, "engine", "took", "model", "error"),
        text="error",
        ids=["session", "id"],
        wraps=True,
    )
    for record in records:
        row = record.model_request
        table.add_row(
            out.print_time(row.created_at_ms),
            *(printable(record.receipt.recorded_by) for _ in by),
            printable(row.session_id),
            printable(row.engine),
            printable(row.model or row.requested_model),
            f"{'≥ ' if row.usage_incomplete else ''}{row.input_tokens:,}/{row.output_tokens:,}",
            money(row.cost_micros) if row.HasField("cost_micros") else "unpriced",
            took(row),
            printable(row.id),
            Text(printable(row.error), style="red"),
        )
    return table


Failed = questions_pb2.ToolCallRecord | questions_pb2.ModelRequestRecord | questions_pb2.SessionRecord


def kind_of(record: Failed) -> str:
    """What failed, as the field of its record: tool_call, model_request or session."""
    return str(record.DESCRIPTOR.fields[0].name)


def failed_at(record: Failed) -> int:
    """When it began, of a session when its last turn ended: milliseconds since 1970-01-01 UTC."""
    if isinstance(record, questions_pb2.SessionRecord):
        return record.session.updated_at_ms
    return int(getattr(record, kind_of(record)).created_at_ms)


class Failure(NamedTuple):
    """What failed, for people."""

    record: Failed
    session_id: str
    what: str
    outcome: Text
    lasted: str
    reason: str


def failure_of(record: Failed, reason_of: Callable[[questions_pb2.SessionRecord], str]) -> Failure:
    """The failure that a record tells of. reason_of: why a session's last turn failed, which its row does not say."""
    if isinstance(record, questions_pb2.ToolCallRecord):
        call, by = record.tool_call, stopped_by(record.tool_call)
        why = f"{by}: {call.decision.reason}" if by else call.error
        return Failure(record, call.session_id, call.tool_name, outcome_text(call), took(call), why)
    failed = Text("failed", style="red")
    if isinstance(record, questions_pb2.ModelRequestRecord):
        request = record.model_request
        return Failure(record, request.session_id, "model request", failed, took(request), request.error)
    return Failure(record, record.session.id, "turn", failed, "", reason_of(record))


def errors_table(failures: Sequence[Failure]) -> Table:
    """What failed, one per line, with the reason."""
    by = _recorded_by(failure.record for failure in failures)
    columns = ("at", *by, "session", "engine", "model", "what", "outcome", "took", "error")
    table = Table(*columns, least=("model", "engine", *by, "took", "error"), text="error", ids=["session"], wraps=True)
    for record, session_id, what, outcome, lasted, reason in failures:
        row = getattr(record, kind_of(record))
        table.add_row(
            out.print_time(failed_at(record)),
            *(printable(record.receipt.recorded_by) for _ in by),
            printable(session_id),
            printable(row.engine),
            printable(row.model),
            printable(what),
            outcome,
            lasted,
            printable(as_typed(reason)),
        )
    return table


def decision_of(row: audit_pb2.AuditRow) -> str:
    """Whose call it is, and what decided on it, where that is more than the configuration that allows it."""
    decision, parts = row.decision, []
    if row.principal or row.on_behalf_of:
        parts.append(f"by {row.principal or '-'}" + (f" for {row.on_behalf_of}" if row.on_behalf_of else ""))
    verdict = enum_name(decision.DESCRIPTOR.fields_by_name["verdict"], decision.verdict)
    if by_stop := stopped_by(row):
        parts.append(by_stop)
    elif decision.decided_by or decision.decided_at_ms:
        by = decision.decided_by or "somebody without a name"
        parts.append(f"{verdict} by {by} after {duration(decision.waited_ms)}")
    elif decision.rule:
        parts.append(f"{verdict} by the rule {decision.rule}")
    parts += [f"“{decision.reason}”"] if decision.reason else []
    parts += ["without a jail"] if row.unconfined else []
    return printable(" · ".join(parts))


def stopped_by(row: audit_pb2.AuditRow) -> str:
    """Who has stopped what a call is of, or which stop where the row names nobody; empty where none refused it."""
    from recording.calls import STOP_RULE  # commands that show no decision need not wait for it

    by, rule = row.decision.decided_by, row.decision.rule
    if not rule.startswith(STOP_RULE):
        return ""
    return f"stopped by {by}" if by else f"stopped (stop {rule.removeprefix(STOP_RULE)})"


def size_of(row: audit_pb2.AuditRow) -> str:
    """The size of a call's result."""
    return size(row.result_bytes) if row.HasField("result_bytes") else "-"


def sessions_table(records: Sequence[questions_pb2.SessionRecord]) -> Table:
    """Sessions, one per line."""
    by = _recorded_by(records)
    table = Table(
        "began",
        *by,
        "session",
        "engine",
        "model",
        "status",
        "turns",
        "tool calls",
        "model requests",
        "tokens in/out",
        "cost",
        "labels",
        least=("model requests", "tokens in/out", "turns", *by, "engine", "labels", "tool calls", "model"),
        text="labels",
        ids=["session"],
    )
    for record in records:
        session = record.session
        table.add_row(
            out.print_time(session.created_at_ms),
            *(printable(record.receipt.recorded_by) for _ in by),
            printable(session.id),
            printable(session.engine),
            printable(session.model),
            status_of(session),
            f"{session.turns:,}" if session.revision else "-",
            f"{session.tool_calls:,}",
            f"{session.usage.requests:,}",
            f"{session.usage.input_tokens:,}/{session.usage.output_tokens:,}",
            cost_of(session.usage),
            labels_of(session),
        )
    return table


def is_uncounted(session: audit_pb2.SessionRow) -> bool:
    """Whether its sums lack the last turn: who keeps a session tells them when a turn begins and when it ends."""
    return session.status == common_pb2.SESSION_STATUS_RUNNING and bool(session.revision)


def status_of(session: audit_pb2.SessionRow) -> str:
    """What a session was doing."""
    return enum_name(session.DESCRIPTOR.fields_by_name["status"], session.status)


def cost_of(usage: common_pb2.Usage) -> str:
    """What model requests have cost, as far as it is known."""
    unknown = f" + {usage.unpriced_requests:,} unpriced" if usage.unpriced_requests else ""
    return money(usage.known_cost_micros) + unknown


def labels_of(session: audit_pb2.SessionRow) -> str:
    """A session's labels."""
    return " ".join(f"{printable(key)}={printable(value)}" for key, value in sorted(session.labels.items()))


def queries_table(queries: Iterable["administration_pb2.QueryRow"]) -> Table:
    """Who asked the ledger what."""
    table = Table(
        "asked",
        "caller",
        "query",
        "times",
        "rows",
        "took",
        "status",
        "filters",
        least=("times", "took", "filters"),
        text="filters",
    )
    for query in queries:
        table.add_row(
            out.print_time(query.created_at_ms),
            printable(query.caller),
            printable(query.method),
            f"{query.times:,}",
            f"{query.rows:,}",
            duration(query.duration_ms),
            printable(query.status),
            printable(query.filters),
        )
    return table


def controls_table(records: Iterable[questions_pb2.ControlRecord]) -> Table:
    """Acts of control, one per line."""
    records = list(records)
    by = _recorded_by(records)
    columns = ("at", *by, "act", "by", "scope", "stop", "rules", "id", "reason")
    table = Table(*columns, least=("id", "rules", *by, "stop", "reason"), text="reason", ids=["id"], wraps=True)
    for record in records:
        control = record.control
        table.add_row(
            out.print_time(control.at_ms),
            *(printable(record.receipt.recorded_by) for _ in by),
            act_of(control),
            printable(control.principal),
            printable(control.scope),
            printable(control.stop_id),
            printable(control.policy_digest),
            printable(control.id),
            printable(control.reason),
        )
    return table


def act_of(control: audit_pb2.ControlRow) -> str:
    """What was done."""
    return enum_name(control.DESCRIPTOR.fields_by_name["kind"], control.kind)


def _recorded_by(
    records: Iterable[
        questions_pb2.ToolCallRecord
        | questions_pb2.ModelRequestRecord
        | questions_pb2.SessionRecord
        | questions_pb2.ControlRecord
    ],
) -> list[str]:
    """The column of who recorded each, where callers have names."""
    return ["recorded by"] if any(record.receipt.recorded_by for record in records) else []
