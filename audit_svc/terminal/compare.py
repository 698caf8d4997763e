"""compare: an engine beside its shadows."""

import sys
from collections.abc import Callable

from onrecord.audit.v1 import questions_pb2

from audit_svc.terminal.client import listed, named_session
from audit_svc.terminal.comparison import Baseline, Comparison, Side
from audit_svc.terminal.comparison import compare as compare_timeline
from audit_svc.terminal.options import RecordedBy, SessionId, Source
from audit_svc.terminal.plain import json_line, money
from audit_svc.terminal.running import Json, out
from service_kit.printable import printable
from service_kit.terminal.failures import Failed
from service_kit.terminal.printing import Table, duration

MAX_ARGUMENTS = 80


def compare(
    session: SessionId,
    source: Source,
    recorded_by: RecordedBy = None,
    as_json: Json = False,
) -> None:
    """Show an engine beside its shadows: which calls agree, what each cost, how long it took."""
    session = named_session(source, session)
    key = questions_pb2.RowKey(id=session, recorded_by=recorded_by)
    request = questions_pb2.GetSessionRecordRequest(session=key)
    comparison = compare_timeline(listed(source, "GetSessionRecord", request, "entries"))
    if not comparison.shadows:
        raise Failed(f"no shadow ran in session {printable(session)}")
    if as_json:
        sys.stdout.write(json_line({"session_id": session, **comparison.to_json()}))
        return
    out.print(_sides_table(comparison))
    out.print(_calls_table(comparison))
    for shadow in comparison.shadows:
        out.print(_sentence(shadow, comparison.beside(shadow)))


def _sides_table(comparison: Comparison) -> Table:
    table = Table("", *(printable(side.name) for side in comparison.sides))
    rows: dict[str, Callable[[Side], str]] = {
        "": lambda side: "shadow" if side.shadow else "worked",
        "turns": lambda side: str(len(side.turns)),
        "model requests": lambda side: (
            f"{side.model_requests}" + (f" ({side.model_request_errors} failed)" * bool(side.model_request_errors))
        ),
        "tool calls": lambda side: str(side.tool_calls.total()),
        "- alike": lambda side: str(side.agreed_calls) if side.shadow else "",
        "- only here": lambda side: str(side.own_calls) if side.shadow else "",
        "- only by who worked": lambda side: str(side.missing_calls) if side.shadow else "",
        "tokens in/out": lambda side: f"{side.input_tokens}/{side.output_tokens}",
        "cost": _cost,
        "cost a turn": lambda side: money(round(side.per_turn(side.known_cost_micros))),
        "model time": lambda side: duration(side.model_ms),
        "model time a turn": lambda side: duration(side.per_turn(side.model_ms)),
    }
    for name, figure in rows.items():
        table.add_row(name, *(figure(side) for side in comparison.sides))
    return table


def _calls_table(comparison: Comparison) -> Table:
    table = Table("turn", "tool", "arguments", *(printable(side.name) for side in comparison.sides))
    turns: dict[str, int] = {}
    for (turn_id, tool, arguments), made in comparison.calls():
        number = turns.setdefault(turn_id, len(turns) + 1)
        shown = arguments if len(arguments) <= MAX_ARGUMENTS else arguments[:MAX_ARGUMENTS] + "…"
        counts = ["" if not count else "✓" if count == 1 else f"✓ {count}x" for count in made]
        table.add_row(str(number), printable(tool), printable(shown), *counts)
    return table


def _sentence(shadow: Side, worked: Baseline) -> str:
    wanted = shadow.agreed_calls + shadow.missing_calls
    alike = f"{shadow.agreed_calls} of {wanted} calls alike" if wanted else "no calls to compare"
    parts = [f"{alike}, {shadow.own_calls} of its own"]
    if worked.known_cost_micros and not (shadow.unpriced_requests or worked.unpriced_requests):
        parts.append(f"{shadow.known_cost_micros / worked.known_cost_micros:.2f} times the cost")
    if worked.model_ms:
        parts.append(f"{shadow.model_ms / worked.model_ms:.2f} times the model time")
    return f"{printable(shadow.name)} beside {printable(worked.name)}: {'; '.join(parts)}"


def _cost(side: Side) -> str:
    return money(side.known_cost_micros) + (
        f" and {side.unpriced_requests} requests of unknown price" * bool(side.unpriced_requests)
    )
