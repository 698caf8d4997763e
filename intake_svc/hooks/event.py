"""One hook's event, as a table reads it. Imports the standard library alone, since `onrecord-hook` does."""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from intake_svc.hooks.tables import TABLES, HookTable, Kind
from intake_svc.names import branch_name, identifier, is_name, repository_name

MAX_MS = 2**53
_EARLIEST_MS = 946_684_800_000
"""Before the year 2000 no row begins."""
_EXIT_CODE = re.compile(r"Exit code ([0-9]{1,9})\b", re.ASCII)
_ID = re.compile(r"[0-9a-f]{16}", re.ASCII)
_VERSION = re.compile(r"v?[0-9][A-Za-z0-9.+_-]{0,40}", re.ASCII)


class WrongEvent(ValueError):
    """What came is no event of the agent's hooks. The message quotes nothing of it."""


class HookEvent(NamedTuple):
    """What an event says. `arguments` alone may hold content; redacted() has none."""

    agent: str
    kind: Kind
    at_ms: int
    """When the hook was called, in milliseconds since 1970-01-01 UTC."""
    session: str
    turn: str = ""
    subagent: str = ""
    tool: str = ""
    """Empty where it may be no name."""
    call_id: str = ""
    arguments: str | None = None
    """As JSON."""
    arguments_count: int | None = None
    """Of what redacted() left out."""
    arguments_bytes: int | None = None
    result_bytes: int | None = None
    exit_code: int | None = None
    is_interrupted: bool = False
    is_known: bool = True
    """Whether it is known how the call ended."""
    duration_ms: int | None = None
    model: str = ""
    version: str = ""
    repository: str = ""
    """Of the folder in which the hook ran: its URL, without a user."""
    branch: str = ""
    id: str = ""
    """What `onrecord-hook` made for the event, so that it is known when it comes again; empty where it is of others."""

    @property
    def table(self) -> HookTable:
        """The agent's."""
        return TABLES[self.agent]

    @property
    def labels(self) -> dict[str, str]:
        """Of the session, as far as they are told."""
        said = {"repository": self.repository, "branch": self.branch}
        return {key: text for key, text in said.items() if text}

    def redacted(self) -> "HookEvent":
        """The same with the number and the size of the arguments in their place."""
        if self.arguments is None:
            return self
        try:
            value = json.loads(self.arguments)
        except (ValueError, RecursionError):
            value = None
        count = len(value) if isinstance(value, dict) else 0
        size = len(self.arguments.encode("utf-8", "replace"))
        return self._replace(arguments=None, arguments_count=count, arguments_bytes=size)

    def to_line(self) -> str:
        """A redacted event as a line."""
        said = {name: value for name, value in self.redacted()._asdict().items() if value not in (None, "")}
        return json.dumps(said | {"kind": self.kind.value}, separators=(",", ":")) + "\n"


def from_line(line: bytes) -> HookEvent:
    """The event of a line.

    Raises:
        WrongEvent: it is none.
    """
    try:
        said = json.loads(line)
        names = HookEvent._fields
        event = HookEvent(**{**{name: said[name] for name in names if name in said}, "kind": Kind(said["kind"])})
        texts = (event.session, event.turn, event.subagent, event.call_id, event.model, event.version)
        numbers = (event.at_ms, event.duration_ms, event.result_bytes, event.exit_code, event.arguments_bytes)
        is_one = (
            event.agent in TABLES
            and event.arguments is None
            and all(isinstance(text, str) and identifier(text) == text for text in texts)
            and all(number is None or (isinstance(number, int) and abs(number) < MAX_MS) for number in numbers)
            and (repository_name(event.repository), branch_name(event.branch)) == (event.repository, event.branch)
            and may_have_taken(event.duration_ms, event.at_ms)
            and isinstance(event.arguments_count, int | None)
            and (event.tool == "" or is_name(event.tool))
            and event_id(event.id) == event.id
        )
        if not is_one:
            raise ValueError
    except (ValueError, TypeError, KeyError, RecursionError):
        raise WrongEvent("it is not an event that onrecord-hook kept") from None
    return event


def may_have_taken(duration_ms: int | None, at_ms: int) -> bool:
    """Whether a call that ended then may have taken so long."""
    return duration_ms is None or at_ms - duration_ms >= _EARLIEST_MS


def event_id(text: str) -> str:
    """What `onrecord-hook` makes for an event; empty for anything else."""
    return text if _ID.fullmatch(text) else ""


def read_event(
    agent: str, document: Any, at_ms: int, name: str = "", place: tuple[str, str] = ("", ""), id_: str = ""
) -> HookEvent:
    """An event of an agent's hooks.

    Args:
        agent: a key of TABLES.
        document: what the hook was given, as parsed.
        at_ms: when.
        name: of the event, where the document does not say it.
        place: the repository and the branch of the folder in which the hook ran.
        id_: what `onrecord-hook` made for it.

    Raises:
        WrongEvent: it is none that the agent's table knows.
    """
    table = TABLES[agent]
    if not isinstance(document, dict):
        raise WrongEvent("an event must be a JSON object")
    said = document.get(table.event)
    if table.other is not None and isinstance(said, str) and said in table.other.kinds:
        table = table.other
    kind = table.kinds.get(said if isinstance(said, str) else name)
    if kind is None:
        raise WrongEvent("it is of no event that is known here")
    result = document.get(table.result) if table.result else None
    ended, error = kind is Kind.AFTER, document.get(table.error)
    is_known = table.says_success and (isinstance(result, dict) or not (table.failed_by or table.status))
    if ended and isinstance(result, dict):
        if table.failed_by and result.get(table.failed_by):
            kind = Kind.FAILED
        if table.status:
            status = result.get(table.status)
            kind = (table.outcomes.get(status) if isinstance(status, str) else None) or Kind.FAILED
    if kind is Kind.FAILED and table.failure:
        kind = table.outcomes.get(_text(document, table.failure), kind)
    code = document.get(table.exit_code) if table.exit_code else None
    if kind is Kind.FAILED and isinstance(error, str) and (found := _EXIT_CODE.match(error)):
        code = int(found[1])
    tool, size = _text(document, table.tool), _number(document, table.result_bytes)
    duration = _number(document, table.duration_ms)
    return HookEvent(
        agent=agent,
        kind=kind,
        at_ms=at_ms,
        session=identifier(_text(document, table.session)),
        turn=identifier(_text(document, table.turn)),
        subagent=identifier(_text(document, table.subagent)),
        tool=tool if is_name(tool) else "",
        call_id=identifier(_text(document, table.call_id)),
        arguments=_json(document.get(table.arguments)),
        result_bytes=_size(result) if size is None and result is not None else size,
        exit_code=code if type(code) is int and abs(code) < 2**31 else None,
        is_interrupted=document.get(table.interrupted) is True,
        is_known=kind is not Kind.AFTER or is_known,
        duration_ms=duration if may_have_taken(duration, at_ms) else None,
        model=identifier(_text(document, table.model)),
        version=version if _VERSION.fullmatch(version := _text(document, table.version)) else "",
        repository=repository_name(place[0]),
        branch=branch_name(place[1]),
        id=event_id(id_),
    )


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name) if name else None
    return value if isinstance(value, str) else ""


def _number(document: Mapping[str, Any], name: str) -> int | None:
    value: Any = document.get(name) if name else None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return int(value) if is_number and 0 <= value < MAX_MS else None


def _json(value: Any) -> str | None:
    """Arguments as JSON; a text is taken as it is, since it should be JSON."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _size(result: Any) -> int:
    """The bytes of what a tool returned: of a text, or of all texts in it."""
    waiting, size = [result], 0
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            size += len(value.encode("utf-8", "replace"))
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return size
