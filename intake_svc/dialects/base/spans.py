"""Reads spans of which each is a call, a request or nothing: what most dialects of spans need."""

from collections.abc import Callable, Iterable, Mapping

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from intake_svc.dialects.base.event import Event, of_span
from intake_svc.dialects.base.logs import FAILED, Kind, kinds
from intake_svc.dialects.base.results import result_of, unknown_end
from intake_svc.dialects.base.rows import CUT, Rows
from intake_svc.dialects.base.showing import Agent
from intake_svc.dialects.base.table import Dialect, Table
from intake_svc.dialects.reading import Reading
from recording.calls import Failure


def read_each(
    dialect: Dialect, table: Table, spans: Iterable[Span], agent: Agent, kind: Callable[[Event], Kind]
) -> Reading:
    """The rows of spans. kind: what a span is of, RESULT for a call that ended.

    The turn of a call may be told by another span that names the call.
    """
    rows = Rows(dialect, table, agent)
    events = [of_span(span, table) for span in spans]
    turns = {
        call: turn
        for event in events
        if (turn := event.attributes.text(table.turn)) and (call := _call(table, event))[1]
    }
    for event in events:
        error = event.attributes.text(table.error_type) or event.error_type
        failed = event.failed or bool(error)
        match kind(event):
            case Kind.RESULT:
                is_told = failed or (event.says_end and (not table.result or event.attributes.have(table.result)))
                rows.call(
                    event,
                    result_of(table, event, failed=failed, error=error) if is_told else unknown_end(event),
                    scope=rows.scope(event, turn=turns.get(_call(table, event), "") if turns else ""),
                    arguments=event.attributes.json(table.arguments),
                )
            case Kind.REQUEST:
                rows.cost(event, scope=rows.scope(event), failure=Failure(FAILED) if failed else None)
            case _ if event.is_cut and not event.attributes.have(table.kind):
                rows.refuse(CUT)
            case _:
                rows.ignore()
    return rows.reading()


def _call(table: Table, event: Event) -> tuple[str, str]:
    """What a call is known by among those of one export."""
    return event.trace_id, event.attributes.text(table.call_id)


def kind_by(words: Mapping[str, Kind], table: Table) -> Callable[[Event], Kind]:
    """Tells the kind of a span by the word that it has for it."""
    of_attributes = kinds(words, table)
    return lambda event: of_attributes(event.attributes)
