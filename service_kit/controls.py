"""Control characters in requests: names have none, and texts have no NUL.

Ids, labels, engines, models, tools, tokens and filters are names (see recording.controls). Texts that people and
programs write have line breaks and more; TEXTS lists them.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from recording.controls import has_control
from service_kit.errors import InvalidRequest

TEXTS: Mapping[str, str] = {
    "onrecord.gateway.v1.RunTurnRequest.input": "a person's message, with lines, or with what a terminal printed",
    "onrecord.gateway.v1.SessionSettings.system_prompt": "a text in lines",
    "onrecord.gateway.v1.AnswerToolCallRequest.reason": "a person's words to the model",
    "onrecord.audit.v1.AuditRow.args_summary": "commands have lines",
    "onrecord.audit.v1.AuditRow.error": "messages of tools have lines",
    "onrecord.audit.v1.CostRow.error": "as in AuditRow",
    "onrecord.common.v1.Decision.reason": "a person's words",
    "onrecord.audit.v1.ControlRow.reason": "a person's words",
    "onrecord.audit.v1.AddCosignatureRequest.note": "a signed note has lines",
    "onrecord.audit.v1.ToolCallFilter.args_contain": "a part of args_summary",
}
"""The fields that are texts, by their full names, each with the reason; all other strings are names."""


def check_controls(request: Message) -> None:
    """Checks all strings of a request.

    Raises:
        InvalidRequest: a name has a control character, or a text has a NUL.
    """
    for path, field, text in _strings(request, ""):
        if field.full_name in TEXTS:
            if "\0" in text:
                raise InvalidRequest(f"{path} has a NUL character: leave it out", path)
        elif has_control(text):
            raise InvalidRequest(f"{path} has a control character, such as NUL or a line break: leave it out", path)


def _strings(message: Message, path: str) -> Iterator[tuple[str, FieldDescriptor, str]]:
    """The strings of a message that are set, those of maps too, each with its path and the field it is in."""
    for field, value in message.ListFields():
        at = f"{path}{field.name}"
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            key, entry = (field.message_type.fields_by_name[name] for name in ("key", "value"))
            yield from _of(at, field, key, value)
            yield from _of(at, field, entry, list(value.values()))
        else:
            yield from _of(at, field, field, value if field.is_repeated else (value,))


def _of(
    path: str, field: FieldDescriptor, part: FieldDescriptor, values: Collection[Any]
) -> Iterator[tuple[str, FieldDescriptor, str]]:
    if part.message_type is not None:
        for value in values:
            yield from _strings(value, f"{path}.")
    elif part.type == FieldDescriptor.TYPE_STRING:
        for value in values:
            yield path, field, value
