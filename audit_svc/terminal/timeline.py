"""How a session looks on a terminal, from its start to its end, and a tool call alone in one line."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from onrecord.audit.v1 import audit_pb2, questions_pb2

from audit_svc.terminal.last_turn import LastTurn
from audit_svc.terminal.plain import money, time_text
from audit_svc.terminal.rows import (
    act_of,
    cost_of,
    decision_of,
    is_uncounted,
    labels_of,
    outcome_text,
    size_of,
    status_of,
    stopped_by,
    took,
)
from audit_svc.terminal.running import out
from service_kit.printable import printable
from service_kit.terminal.failures import as_typed
from service_kit.terminal.ids import short_ids
from service_kit.terminal.printing import MIN_TEXT, Sentence, Text, counted

_BENEATH = 12
"""The blanks before what goes on below a line."""


def call_line(row: audit_pb2.AuditRow) -> Text:
    """A tool call in one line, as a tail shows it."""
    line = Sentence(f"{time_text(row.created_at_ms)}  ", "dim", beneath=_BENEATH)
    session = short_ids([row.session_id])[row.session_id] if out.width else row.session_id
    line.append(f"{printable(session)}  ", style="dim")
    return _call(line, row, out.width)


class Timeline:
    """A session from start to end, one line each for turns, model requests and tool calls with their cost, and for what
    was done to all agents meanwhile.
    """

    def __init__(
        self,
        record: questions_pb2.SessionRecord,
        controls: Sequence[questions_pb2.ControlRecord] = (),
        *,
        with_ids: bool = False,
    ) -> None:
        """Begins with no turn.

        controls: acts of control while the session went on, the oldest first. with_ids: each line has the id of its
        row, and no end.
        """
        self._session, self._recorded_by = record.session, record.receipt.recorded_by
        self._turn_id: str | None = None
        self._controls = deque(controls)
        self._with_ids = with_ids
        self._last_turn = LastTurn()
        self.stops: list[str] = []
        """The stops that came meanwhile, and what calls that were refused say of theirs."""

    def heading(self) -> Iterator[Text]:
        """What the session was."""
        session, usage = self._session, self._session.usage
        yield Sentence(f"session {printable(session.id)}", style="bold")
        status = " · ".join(filter(None, (printable(session.engine), printable(session.model), status_of(session))))
        labels = f" · {labels_of(session)}" if session.labels else ""
        by = f" · recorded by {printable(self._recorded_by)}" if self._recorded_by else ""
        yield Sentence(f"{time_text(session.created_at_ms)} UTC · {status}{labels}{by}")
        uncounted = " · the last turn is not counted yet" if is_uncounted(session) else ""
        turns = f"{counted(session.turns, 'turn')} · " if session.revision else ""  # of others they are not counted
        yield Sentence(
            f"{turns}{counted(session.tool_calls, 'tool call')} · "
            f"{counted(usage.requests, 'model request')} · "
            f"{usage.input_tokens:,} tokens in, {usage.output_tokens:,} out · {cost_of(usage)}{uncounted}"
        )

    def lines(self, entries: Iterable[questions_pb2.Entry]) -> Iterator[Text]:
        """The next entries, each turn below its name."""
        for entry in entries:
            yield from self._controls_until(entry.at_ms)
            self._last_turn.see(entry)
            if entry.turn_id != self._turn_id:
                self._turn_id = entry.turn_id
                yield Text(f"\nturn {printable(entry.turn_id) or '-'}", style="bold")
            line = self._begun(entry.at_ms)
            kind = entry.WhichOneof("entry")
            if kind == "model_request":
                line = _request(line, entry.model_request.model_request)
                line.append(self._by_another(entry.model_request.receipt), style="yellow")
                yield line.append(self._id(entry.model_request.model_request.id), style="dim")
            elif kind == "tool_call":
                self.stops += [rule] if (rule := entry.tool_call.tool_call.decision.rule).startswith("stop:") else []
                line = _call(line, entry.tool_call.tool_call, None if self._with_ids else out.width)
                line.append(self._by_another(entry.tool_call.receipt), style="yellow")
                yield line.append(self._id(entry.tool_call.tool_call.id), style="dim")
            else:
                yield line.append("of a kind that this version does not know")

    def end(self) -> Iterator[Text]:
        """What was done after the last entry, and what is known of an end that no entry tells."""
        yield from self._controls_until(self._session.updated_at_ms)
        if why := self._last_turn.why(self._session):
            yield Sentence(f"\n{why}", style="yellow")

    def _begun(self, at_ms: int) -> Text:
        return Sentence(f"{_offset(at_ms - self._session.created_at_ms):>10}  ", "dim", beneath=_BENEATH)

    def _controls_until(self, at_ms: int) -> Iterator[Text]:
        while self._controls and self._controls[0].control.at_ms <= at_ms:
            control = self._controls.popleft().control
            self._last_turn.see_control(control)
            self.stops += [f"stop:{control.stop_id}"] if control.stop_id else []
            line = self._begun(control.at_ms).append(f"{act_of(control)} {printable(control.scope)}", style="yellow")
            line.append(f" · by {printable(control.principal)}" if control.principal else "", style="dim")
            line.append(f" · “{printable(control.reason)}”" if control.reason else "", style="dim")
            yield line.append(self._id(control.id), style="dim")

    def _id(self, id_: str) -> str:
        return f" · {printable(id_)}" if self._with_ids else ""

    def _by_another(self, receipt: questions_pb2.Receipt) -> str:
        """Who recorded an entry, where it was not who recorded the session."""
        if receipt.recorded_by == self._recorded_by:
            return ""
        return f" · recorded by {printable(receipt.recorded_by) or 'a caller without a name'}"


def _call(line: Text, row: audit_pb2.AuditRow, width: int | None) -> Text:
    """A call behind line. Where a line has an end, at width, its arguments are cut before anything else is; what was
    decided and what went wrong stand below where they have no room.
    """
    line.append(f"{'shadow ' if row.shadow else ''}{printable(row.tool_name)} ", style="cyan")
    rest = Text(" ").append(outcome_text(row)).append(f" · {took(row, 'about ')} · {size_of(row)}", style="dim")
    decided, error = decision_of(row), printable(as_typed(row.error))
    if width and stopped_by(row):
        error = ""  # says the same, and what lifts it: the end of a timeline has it
    why = Text(decided, "dim").append(" · " if decided and error else "", "dim").append(error, "red")
    arguments, least = Text(printable(row.args_summary)), len(str(line)) + len(str(rest))
    if not str(why):
        pass
    elif width is None or least + MIN_TEXT + 3 + len(str(why)) <= width:
        rest.append(" · ", "dim").append(why)
        least += 3 + len(str(why))
    else:
        rest.append("\n" + " " * _BENEATH).append(why)
    if width:
        arguments = arguments.cut(max(MIN_TEXT, width - least))
    return line.append(arguments).append(rest)


def _request(line: Text, row: audit_pb2.CostRow) -> Text:
    line.append(f"{'shadow ' if row.shadow else ''}{printable(row.engine)} {printable(row.model)} ", style="magenta")
    cost = money(row.cost_micros) if row.HasField("cost_micros") else "unpriced"
    cost += " as reported" if row.cost_reported else ""
    counts = f"{row.input_tokens:,} tokens in, {row.output_tokens:,} out · {cost} · {took(row)}"
    line.append(counts + (" · counts incomplete" if row.usage_incomplete else ""), style="")
    if row.context_exceeded:
        line.append(" · context exceeded", style="yellow")
    if row.error:
        line.append(f" · {printable(row.error)}", style="red")
    return line


def _offset(ms: int) -> str:
    return f"{ms / 1000:+.3f}s"
