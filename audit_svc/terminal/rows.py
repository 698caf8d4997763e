"""How rows look on a terminal."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from google.protobuf.descriptor import FieldDescriptor
from onrecord.audit.v1 import audit_pb2, questions_pb2
from onrecord.common.v1 import common_pb2

from audit_svc.terminal.plain import enum_name, money, time_text
from audit_svc.terminal.running import out, size
from service_kit.printable import printable
from service_kit.terminal import outcomes
from service_kit.terminal.ids import short_ids
from service_kit.terminal.printing import MIN_TEXT, Table, Text, counted, duration

if TYPE_CHECKING:
    from onrecord.audit.v1 import administration_pb2

MAX_INT64 = 2**63 - 1
EXACT_MS = 32
"""Percentiles of durations below are exact."""


def outcome_of(row: audit_pb2.AuditRow) -> str:
    """How a call ended."""
    return enum_name(row.DESCRIPTOR.fields_by_name["outcome"], row.outcome)


def outcome_text(row: audit_pb2.AuditRow) -> Text:
    """How a call ended, with the code or status that it ended with."""
    exit_code = row.exit_code if row.HasField("exit_code") else None
    http_status = row.http_status if row.HasField("http_status") else None
    return outcomes.outcome_text(outcome_of(row), exit_code, http_status)


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
        last,
        least=("result", "model", "engine", *by, "took", last),
        text=last,
        ids=["session"],
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
            duration(row.duration_ms),
            size_of(row),
            printable(row.args_summary),
        )
    return table


def requests_table(records: Sequence[questions_pb2.ModelRequestRecord]) -> Table:
    """Model requests, one per line."""
    by = _recorded_by(records)
    columns = ("began", *by, "session", "engine", "model", "tokens in/out", "cost", "took", "error")
    table = Table(
        *columns, least=("tokens in/out", *by, "engine", "took", "model", "error"), text="error", ids=["session"]
    )
    for record in records:
        row = record.model_request
        table.add_row(
            out.print_time(row.created_at_ms),
            *(printable(record.receipt.recorded_by) for _ in by),
            printable(row.session_id),
            printable(row.engine),
            printable(row.model or row.requested_model),
            f"{row.input_tokens:,}/{row.output_tokens:,}",
            money(row.cost_micros) if row.HasField("cost_micros") else "unpriced",
            duration(row.duration_ms),
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


def errors_table(records: Sequence[Failed]) -> Table:
    """What failed, one per line, with the reason."""
    by = _recorded_by(records)
    columns = ("at", *by, "session", "engine", "model", "what", "outcome", "took", "error")
    table = Table(*columns, least=("model", "engine", *by, "took", "error"), text="error", ids=["session"])
    for record in records:
        session_id, what, outcome, took, reason = _failure(record)
        row = getattr(record, kind_of(record))
        table.add_row(
            out.print_time(failed_at(record)),
            *(printable(record.receipt.recorded_by) for _ in by),
            printable(session_id),
            printable(row.engine),
            printable(row.model),
            printable(what),
            outcome,
            took,
            printable(reason),
        )
    return table


def _failure(record: Failed) -> tuple[str, str, Text, str, str]:
    """The session, what failed in it, how it ended, how long it took, and why."""
    if isinstance(record, questions_pb2.ToolCallRecord):
        call = record.tool_call
        return call.session_id, call.tool_name, outcome_text(call), duration(call.duration_ms), call.error
    failed = Text("failed", style="red")
    if isinstance(record, questions_pb2.ModelRequestRecord):
        request = record.model_request
        return request.session_id, "model request", failed, duration(request.duration_ms), request.error
    return record.session.id, "turn", failed, "", "the session's last turn"


def size_of(row: audit_pb2.AuditRow) -> str:
    """The size of a call's result."""
    return size(row.result_bytes) if row.HasField("result_bytes") else "-"


def call_line(row: audit_pb2.AuditRow) -> Text:
    """A tool call in one line, as a tail shows it."""
    line = Text(f"{time_text(row.created_at_ms)}  ", style="dim")
    session = short_ids([row.session_id])[row.session_id] if out.width else row.session_id
    line.append(f"{printable(session)}  ", style="dim")
    return _call(line, row)


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


def usage_table(names: Sequence[str], groups: Iterable[questions_pb2.UsageGroup]) -> Table:
    """What each group took."""
    numbers = (
        "tool calls",
        "errors",
        "exit≠0",
        "HTTP≥400",
        "p50",
        "p95",
        "p99",
        "results",
        "model requests",
        "tokens in",
        "tokens out",
        "cost",
    )
    least = (
        "HTTP≥400",
        "exit≠0",
        "results",
        "p50",
        "p99",
        "p95",
        "tokens in",
        "tokens out",
        "errors",
        "model requests",
    )
    ids = [name for name in names if name == "session"]
    table = Table(*names, *numbers, numbers=numbers, least=least, ids=ids)
    groups = list(groups)
    for group in [*groups, *([_total(groups)] if len(groups) > 1 and names else [])]:
        table.add_row(
            *(printable(value) or "-" for value in group.values),
            f"{group.tool_calls:,}",
            Text(f"{group.tool_call_errors:,}", style="red" if group.tool_call_errors else ""),
            f"{group.nonzero_exits:,}",
            f"{group.http_errors:,}",
            *_quantiles(group),
            size(group.result_bytes),
            f"{group.usage.requests:,}",
            f"{group.usage.input_tokens:,}",
            f"{group.usage.output_tokens:,}",
            cost_of(group.usage),
        )
    return table


def _total(groups: Sequence[questions_pb2.UsageGroup]) -> questions_pb2.UsageGroup:
    """The sums of all; percentiles have none."""
    total = questions_pb2.UsageGroup(values=["total", *[" "] * (len(groups[0].values) - 1)])
    pairs = [(total, groups), (total.usage, [group.usage for group in groups])]
    for summed, parts in pairs:
        for field in summed.DESCRIPTOR.fields:
            if field.type == FieldDescriptor.TYPE_INT64:
                setattr(summed, field.name, min(MAX_INT64, sum(getattr(part, field.name) for part in parts)))
    return total


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
    columns = ("at", *by, "act", "by", "scope", "stop", "rules", "reason")
    table = Table(*columns, least=("rules", *by, "stop", "reason"), text="reason")
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
            printable(control.reason),
        )
    return table


def act_of(control: audit_pb2.ControlRow) -> str:
    """What was done."""
    return enum_name(control.DESCRIPTOR.fields_by_name["kind"], control.kind)


class Timeline:
    """A session from start to end, one line each for turns, model requests and tool calls with their cost, and for what
    was done to all agents meanwhile.
    """

    def __init__(
        self, record: questions_pb2.SessionRecord, controls: Sequence[questions_pb2.ControlRecord] = ()
    ) -> None:
        """Begins with no turn. controls: acts of control while the session went on, the oldest first."""
        self._session, self._recorded_by = record.session, record.receipt.recorded_by
        self._turn_id: str | None = None
        self._controls = deque(controls)

    def heading(self) -> Iterator[Text]:
        """What the session was."""
        session, usage = self._session, self._session.usage
        yield Text(f"session {printable(session.id)}", style="bold")
        status = " · ".join(filter(None, (printable(session.engine), printable(session.model), status_of(session))))
        labels = f" · {labels_of(session)}" if session.labels else ""
        by = f" · recorded by {printable(self._recorded_by)}" if self._recorded_by else ""
        yield Text(f"{time_text(session.created_at_ms)} UTC · {status}{labels}{by}")
        turns = f"{counted(session.turns, 'turn')} · " if session.revision else ""  # of others they are not counted
        yield Text(
            f"{turns}{counted(session.tool_calls, 'tool call')} · "
            f"{counted(usage.requests, 'model request')} · "
            f"{usage.input_tokens:,} tokens in, {usage.output_tokens:,} out · {cost_of(usage)}"
        )

    def lines(self, entries: Iterable[questions_pb2.Entry]) -> Iterator[Text]:
        """The next entries, each turn below its name."""
        for entry in entries:
            yield from self._controls_until(entry.at_ms)
            if entry.turn_id != self._turn_id:
                self._turn_id = entry.turn_id
                yield Text(f"\nturn {printable(entry.turn_id) or '-'}", style="bold")
            line = self._begun(entry.at_ms)
            kind = entry.WhichOneof("entry")
            if kind == "model_request":
                line = _request(line, entry.model_request.model_request)
                yield line.append(self._by_another(entry.model_request.receipt), style="yellow")
            elif kind == "tool_call":
                line = _call(line, entry.tool_call.tool_call)
                yield line.append(self._by_another(entry.tool_call.receipt), style="yellow")
            else:
                yield line.append("of a kind that this version does not know")

    def end(self) -> Iterator[Text]:
        """What was done after the last entry."""
        yield from self._controls_until(self._session.updated_at_ms)

    def _begun(self, at_ms: int) -> Text:
        return Text(f"{_offset(at_ms - self._session.created_at_ms):>10}  ", style="dim")

    def _controls_until(self, at_ms: int) -> Iterator[Text]:
        while self._controls and self._controls[0].control.at_ms <= at_ms:
            control = self._controls.popleft().control
            line = self._begun(control.at_ms).append(f"{act_of(control)} {printable(control.scope)}", style="yellow")
            line.append(f" · by {printable(control.principal)}" if control.principal else "", style="dim")
            yield line.append(f" · “{printable(control.reason)}”" if control.reason else "", style="dim")

    def _by_another(self, receipt: questions_pb2.Receipt) -> str:
        """Who recorded an entry, where it was not who recorded the session."""
        if receipt.recorded_by == self._recorded_by:
            return ""
        return f" · recorded by {printable(receipt.recorded_by) or 'a caller without a name'}"


def _call(line: Text, row: audit_pb2.AuditRow) -> Text:
    """A call behind line. Where a line has an end, its arguments are cut before anything else is."""
    line.append(f"{'shadow ' if row.shadow else ''}{printable(row.tool_name)} ", style="cyan")
    rest = Text(" ").append(outcome_text(row))
    observed = "about " if row.times_observed else ""
    rest.append(f" · {observed}{duration(row.duration_ms)} · {size_of(row)}", style="dim")
    if decided := decision_of(row):
        rest.append(f" · {decided}", style="dim")
    if row.error:
        rest.append(f" · {printable(row.error)}", style="red")
    arguments = Text(printable(row.args_summary))
    if width := out.width:
        arguments = arguments.cut(max(MIN_TEXT, width - len(str(line)) - len(str(rest))))
    return line.append(arguments).append(rest)


def decision_of(row: audit_pb2.AuditRow) -> str:
    """Whose call it is, and what decided on it, where that is more than the configuration that allows it."""
    decision, parts = row.decision, []
    if row.principal or row.on_behalf_of:
        parts.append(f"by {row.principal or '-'}" + (f" for {row.on_behalf_of}" if row.on_behalf_of else ""))
    verdict = enum_name(decision.DESCRIPTOR.fields_by_name["verdict"], decision.verdict)
    if decision.decided_by or decision.decided_at_ms:
        by = decision.decided_by or "somebody without a name"
        parts.append(f"{verdict} by {by} after {duration(decision.waited_ms)}")
    elif decision.rule:
        parts.append(f"{verdict} by the rule {decision.rule}")
    parts += [f"“{decision.reason}”"] if decision.reason else []
    parts += ["without a jail"] if row.unconfined else []
    return printable(" · ".join(parts))


def _request(line: Text, row: audit_pb2.CostRow) -> Text:
    line.append(f"{'shadow ' if row.shadow else ''}{printable(row.engine)} {printable(row.model)} ", style="magenta")
    cost = money(row.cost_micros) if row.HasField("cost_micros") else "unpriced"
    cost += " as reported" if row.cost_reported else ""
    counts = f"{row.input_tokens:,} tokens in, {row.output_tokens:,} out · {cost} · {duration(row.duration_ms)}"
    line.append(counts + (" · counts incomplete" if row.usage_incomplete else ""), style="")
    if row.context_exceeded:
        line.append(" · context exceeded", style="yellow")
    if row.error:
        line.append(f" · {printable(row.error)}", style="red")
    return line


def _offset(ms: int) -> str:
    return f"{ms / 1000:+.3f}s"


def _quantiles(row: questions_pb2.UsageGroup) -> Iterator[str]:
    for name in ("duration_p50_ms", "duration_p95_ms", "duration_p99_ms"):
        took = getattr(row, name)
        # Longer ones are known within 1/32 of themselves (UsageGroup), so that one may lie above the longest of them.
        yield ("~" * (took >= EXACT_MS) + duration(took)) if row.HasField(name) else "-"


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
