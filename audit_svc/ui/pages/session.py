"""One session: its turns, in each its model requests and the calls that followed, with what they took and when."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from onrecord.audit.v1 import audit_pb2, questions_pb2
from starlette.responses import Response

from audit_svc.ledger.numbers import stream_of
from audit_svc.terminal.last_turn import why_ended
from audit_svc.ui.asked import Asked
from audit_svc.ui.pages.checks import LOST_ROWS, producers
from audit_svc.ui.texts import is_bad, link, named

PAGE = 500
CONTROLS = 100
WIDTH = 1000
"""Of a waterfall, in its own units."""


@dataclass(slots=True)
class Node:
    """A request or a call in a turn. x and width: where it is in its turn's waterfall."""

    at_ms: int
    receipt: questions_pb2.Receipt
    request: audit_pb2.CostRow | None = None
    call: audit_pb2.AuditRow | None = None
    x: float = 0
    width: float = 0

    @property
    def duration_ms(self) -> int:
        """How long it took, in milliseconds."""
        row = self.request or self.call
        return row.duration_ms if row else 0

    @property
    def look(self) -> str:
        """The class that it is drawn in."""
        if self.call is None:
            return "request bad" if self.request is None or self.request.error else "request"
        if self.call.tool_name == LOST_ROWS:
            return "hole"
        ended = named(self.call, "outcome")
        return ended if ended in {"interrupted", "denied"} else "bad" if is_bad(self.call) else "call"


@dataclass(slots=True)
class Turn:
    """A turn as far as the page shows it; cost in millionths of a US dollar."""

    id: str
    nodes: list[Node] = field(default_factory=list)
    parent_turn_id: str = ""
    controls: list[audit_pb2.ControlRow] = field(default_factory=list)
    """What was done to agents before it began."""

    def costs(self) -> Iterable[audit_pb2.CostRow]:
        """Its requests."""
        return (node.request for node in self.nodes if node.request is not None)

    @property
    def cost_micros(self) -> int:
        return sum(row.cost_micros for row in self.costs())

    @property
    def unpriced(self) -> int:
        return sum(not row.HasField("cost_micros") for row in self.costs())

    @property
    def input_tokens(self) -> int:
        return sum(row.input_tokens for row in self.costs())

    @property
    def output_tokens(self) -> int:
        return sum(row.output_tokens for row in self.costs())

    @property
    def calls(self) -> int:
        return sum(node.call is not None for node in self.nodes)

    @property
    def bad(self) -> int:
        return sum(node.call is not None and is_bad(node.call) for node in self.nodes)

    @property
    def begins_ms(self) -> int:
        return min(node.at_ms for node in self.nodes)

    @property
    def ends_ms(self) -> int:
        return max(node.at_ms + node.duration_ms for node in self.nodes)

    def place(self) -> None:
        """Gives each node its place in the waterfall, at least as wide as can be seen."""
        scale = WIDTH / max(self.ends_ms - self.begins_ms, 1)
        for node in self.nodes:
            node.width = round(min(max(node.duration_ms * scale, 4), WIDTH), 1)
            node.x = round(min((node.at_ms - self.begins_ms) * scale, WIDTH - node.width), 1)


async def session(asked: Asked) -> Response:
    """The page. Raises NotAnswered."""
    recorded_by = asked.name_of_caller("by")
    key = questions_pb2.RowKey(id=asked.request.query_params.get("id", ""), recorded_by=recorded_by)
    request = questions_pb2.GetSessionRecordRequest(session=key, page_size=PAGE, page_token=asked.text("page"))
    answer: questions_pb2.GetSessionRecordResponse = await asked.ledger.ask("GetSessionRecord", request)
    record = answer.session
    controls, holes = await asyncio.gather(
        _controls(asked, record), producers(asked, CONTROLS, is_whole=False, session_id=record.session.id)
    )
    turns = turns_of(answer.entries)
    for turn in turns:
        turn.place()
    why = "" if answer.next_page_token else why_ended(record.session, answer.entries, controls)
    rest = _put_between(turns, controls)
    address = link("/session", id=record.session.id, by=recorded_by)
    following = link("/session", id=record.session.id, by=recorded_by, page=answer.next_page_token)
    return asked.page(
        "session.html",
        record=record,
        row=record.session,
        turns=turns,
        controls=rest,
        why=why,
        holes=[(stream_of(hole.id) or ("", hole.id), hole) for hole in holes],
        address=address,
        following=following if answer.next_page_token else "",
        is_first=not asked.text("page"),
        ids={turn.id for turn in turns},
        width=WIDTH,
    )


def turns_of(entries: Iterable[questions_pb2.Entry]) -> list[Turn]:
    """The turns in the order in which they began, each with its entries, also of kinds that are not known here."""
    turns: dict[str, Turn] = {}
    for entry in entries:
        turn = turns.setdefault(entry.turn_id, Turn(entry.turn_id))
        if entry.WhichOneof("entry") == "tool_call":
            call = entry.tool_call.tool_call
            turn.nodes.append(Node(entry.at_ms, entry.tool_call.receipt, call=call))
            turn.parent_turn_id = turn.parent_turn_id or call.parent_turn_id
        elif entry.WhichOneof("entry") == "model_request":
            row = entry.model_request.model_request
            turn.nodes.append(Node(entry.at_ms, entry.model_request.receipt, request=row))
            turn.parent_turn_id = turn.parent_turn_id or row.parent_turn_id
        else:
            turn.nodes.append(Node(entry.at_ms, questions_pb2.Receipt()))
    return list(turns.values())


async def _controls(asked: Asked, record: questions_pb2.SessionRecord) -> list[audit_pb2.ControlRow]:
    """What who recorded the session did to agents while it went on, the oldest first."""
    wanted = questions_pb2.ControlFilter(
        created_from_ms=record.session.created_at_ms,
        created_before_ms=max(record.session.created_at_ms, record.session.updated_at_ms) + 1,
        recorded_by=record.receipt.recorded_by,
    )
    request = questions_pb2.ListControlsRequest(filter=wanted, page_size=CONTROLS)
    response: questions_pb2.ListControlsResponse = await asked.ledger.ask("ListControls", request)
    return [found.control for found in response.controls][::-1]


def _put_between(turns: list[Turn], controls: list[audit_pb2.ControlRow]) -> list[audit_pb2.ControlRow]:
    """Gives each turn what was done before it; returns what was done after the last one began."""
    rest = list(controls)
    for turn in turns:
        while rest and rest[0].at_ms <= turn.begins_ms:
            turn.controls.append(rest.pop(0))
    return rest
