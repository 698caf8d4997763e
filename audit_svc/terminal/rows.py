"""How rows look on a terminal."""

from collections.abc import Iterable, Iterator, Sequence

from onrecord.audit.v1 import administration_pb2, audit_pb2, questions_pb2
from rich.table import Table
from rich.text import Text

from audit_svc.terminal.plain import duration, enum_name, money, time_text
from audit_svc.terminal.running import size
from service_kit.printable import printable

FINE = {"succeeded", "dry_run", ""}


def outcome_of(row: audit_pb2.AuditRow) -> str:
    """How a call ended."""
    return enum_name(row.DESCRIPTOR.fields_by_name["outcome"], row.outcome)


def outcome_text(row: audit_pb2.AuditRow) -> Text:
    """How a call ended, with the code or status that it ended with."""
    outcome = outcome_of(row)
    parts = [outcome or "ended"]
    parts += [f"exit {row.exit_code}"] if row.HasField("exit_code") else []
    parts += [f"HTTP {row.http_status}"] if row.HasField("http_status") else []
    bad = outcome not in FINE or row.exit_code or row.http_status >= 400
    return Text(" ".join(parts), style="red" if bad else "green")


def calls_table(rows: Iterable[audit_pb2.AuditRow], *, errors: bool = False) -> Table:
    """Tool calls, one per line; with errors, the reason in place of the arguments."""
    table = _table(
        "began", "session", "engine", "model", "tool", "outcome", "took", "result", (errors and "error") or "arguments"
    )
    for row in rows:
        table.add_row(
            time_text(row.created_at_ms),
            printable(row.session_id),
            printable(row.engine),
            printable(row.model),
            printable(row.tool_name),
            outcome_text(row),
            duration(row.duration_ms),
            size(row.result_bytes),
            printable(row.error if errors else row.args_summary),
        )
    return table


def call_line(row: audit_pb2.AuditRow) -> Text:
    """A tool call in one line, as a tail shows it."""
    line = Text(f"{time_text(row.created_at_ms)}  ", style="dim")
    line.append(f"{printable(row.session_id)}  ", style="dim")
    return _call(line, row)


def sessions_table(sessions: Iterable[audit_pb2.SessionRow]) -> Table:
    """Sessions, one per line."""
    table = _table(
        "began", "session", "engine", "model", "status", "turns", "steps", "calls", "tokens in/out", "cost", "labels"
    )
    for session in sessions:
        table.add_row(
            time_text(session.created_at_ms),
            printable(session.id),
            printable(session.engine),
            printable(session.model),
            status_of(session),
            f"{session.turns:,}",
            f"{session.steps:,}",
            f"{session.tool_calls:,}",
            f"{session.input_tokens:,}/{session.output_tokens:,}",
            cost_of(session),
            labels_of(session),
        )
    return table


def status_of(session: audit_pb2.SessionRow) -> str:
    """What a session was doing."""
    return enum_name(session.DESCRIPTOR.fields_by_name["status"], session.status)


def cost_of(session: audit_pb2.SessionRow) -> str:
    """What a session has cost, as far as it is known."""
    unknown = f" + {session.unpriced_steps:,} unpriced" if session.unpriced_steps else ""
    return money(session.cost_micros) + unknown


def labels_of(session: audit_pb2.SessionRow) -> str:
    """A session's labels."""
    return " ".join(f"{printable(key)}={printable(value)}" for key, value in sorted(session.labels.items()))


def usage_table(groups: Sequence[str], rows: Iterable[questions_pb2.UsageGroup]) -> Table:
    """What each group took."""
    table = _table(*groups)
    for name in (
        "calls",
        "errors",
        "exit≠0",
        "HTTP≥400",
        "p50",
        "p95",
        "p99",
        "results",
        "requests",
        "tokens in",
        "tokens out",
        "cost",
    ):
        table.add_column(name, justify="right")
    for row in rows:
        unpriced = f" + {row.unpriced_requests:,} unpriced" if row.unpriced_requests else ""
        table.add_row(
            *(printable(value) or "-" for value in row.group),
            f"{row.calls:,}",
            Text(f"{row.errors:,}", style="red" if row.errors else ""),
            f"{row.nonzero_exits:,}",
            f"{row.http_errors:,}",
            *_quantiles(row),
            size(row.result_bytes),
            f"{row.requests:,}",
            f"{row.input_tokens:,}",
            f"{row.output_tokens:,}",
            money(row.cost_micros) + unpriced,
        )
    return table


def queries_table(queries: Iterable[administration_pb2.QueryRow]) -> Table:
    """Who asked the ledger what."""
    table = _table("asked", "caller", "query", "times", "rows", "took", "status", "filters")
    for query in queries:
        table.add_row(
            time_text(query.created_at_ms),
            printable(query.caller),
            printable(query.method),
            f"{query.times:,}",
            f"{query.rows:,}",
            duration(query.duration_ms),
            printable(query.status),
            printable(query.filters),
        )
    return table


class Timeline:
    """A session from start to end, one line each for turns, model requests and tool calls, with their cost."""

    def __init__(self, session: audit_pb2.SessionRow) -> None:
        """Begins with no turn."""
        self._session = session
        self._turn_id: str | None = None

    def heading(self) -> Iterator[Text]:
        """What the session was."""
        session = self._session
        yield Text(f"session {printable(session.id)}", style="bold")
        status = f"{printable(session.engine)} · {printable(session.model)} · {status_of(session)}"
        labels = f" · {labels_of(session)}" if session.labels else ""
        yield Text(f"{time_text(session.created_at_ms)} UTC · {status}{labels}")
        yield Text(
            f"{session.turns:,} turns · {session.steps:,} steps · {session.tool_calls:,} tool calls · "
            f"{session.input_tokens:,} tokens in, {session.output_tokens:,} out · {cost_of(session)}"
        )

    def lines(self, entries: Iterable[questions_pb2.Entry]) -> Iterator[Text]:
        """The next entries, each turn below its name."""
        for entry in entries:
            request = entry.HasField("model_request")
            row = entry.model_request if request else entry.tool_call
            if row.turn_id != self._turn_id:
                self._turn_id = row.turn_id
                yield Text(f"\nturn {printable(row.turn_id) or '-'}", style="bold")
            line = Text(f"{_offset(row.created_at_ms - self._session.created_at_ms):>10}  ", style="dim")
            yield _request(line, entry.model_request) if request else _call(line, entry.tool_call)


def _call(line: Text, row: audit_pb2.AuditRow) -> Text:
    line.append(f"{'shadow ' if row.shadow else ''}{printable(row.tool_name)} ", style="cyan")
    line.append(f"{printable(row.args_summary)} ", style="")
    line.append_text(outcome_text(row))
    observed = "about " if row.times_observed else ""
    line.append(f" · {observed}{duration(row.duration_ms)} · {size(row.result_bytes)}", style="dim")
    if row.error:
        line.append(f" · {printable(row.error)}", style="red")
    return line


def _request(line: Text, row: audit_pb2.CostRow) -> Text:
    line.append(f"{'shadow ' if row.shadow else ''}{printable(row.engine)} {printable(row.model)} ", style="magenta")
    cost = money(row.cost_micros) if row.HasField("cost_micros") else "unpriced"
    counts = f"{row.input_tokens:,} tokens in, {row.output_tokens:,} out · {cost} · {duration(row.duration_ms)}"
    line.append(counts + (" · counts incomplete" if row.usage_incomplete else ""), style="")
    if row.context_exceeded:
        line.append(" · context exceeded", style="yellow")
    if row.error:
        line.append(f" · {printable(row.error)}", style="red")
    return line


def _offset(ms: int) -> str:
    return f"+{ms / 1000:.3f}s"


def _quantiles(row: questions_pb2.UsageGroup) -> Iterator[str]:
    for name in ("duration_p50_ms", "duration_p95_ms", "duration_p99_ms"):
        yield duration(getattr(row, name)) if row.HasField(name) else "-"


def _table(*columns: str) -> Table:
    return Table(*columns, box=None, pad_edge=False, header_style="bold")
