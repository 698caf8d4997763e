"""Records as readers get them: a producer's row from the values of its table, and beside it what the ledger says."""

from collections.abc import Sequence
from typing import Any

from onrecord.audit.v1 import questions_pb2

from audit_svc.ledger.columns import Column
from audit_svc.ledger.tables import CONTROL_COLUMNS, COST_COLUMNS, SESSION_COLUMNS, TOOL_CALL_COLUMNS
from audit_svc.ledger.valid_rows import Values


def tool_call_record(receipt: Values, values: Values) -> questions_pb2.ToolCallRecord:
    """A tool call, from its position, recorded_by, recorded_at and erased, and the values of TOOL_CALL_COLUMNS."""
    # The fields are set in their place: a row that is made first would be copied.
    return questions_pb2.ToolCallRecord(tool_call=_TOOL_CALL_WIRE.fields(values), receipt=_receipt(receipt))


def model_request_record(receipt: Values, values: Values) -> questions_pb2.ModelRequestRecord:
    """A model request, from its position, recorded_by, recorded_at and erased, and the values of COST_COLUMNS."""
    return questions_pb2.ModelRequestRecord(model_request=_COST_WIRE.fields(values), receipt=_receipt(receipt))


def session_record(receipt: Values, values: Values, labels: dict[str, str]) -> questions_pb2.SessionRecord:
    """A session, from its position, recorded_by and recorded_at, and the values of SESSION_COLUMNS."""
    session = _SESSION_WIRE.fields(values)
    session["labels"] = labels
    return questions_pb2.SessionRecord(session=session, receipt=_receipt(receipt))


def control_record(receipt: Values, values: Values) -> questions_pb2.ControlRecord:
    """An act of control, from its position, recorded_by, recorded_at and erased, and the values of CONTROL_COLUMNS."""
    return questions_pb2.ControlRecord(control=_CONTROL_WIRE.fields(values), receipt=_receipt(receipt))


def _receipt(receipt: Values) -> Any:
    """The fields of a Receipt. Rows from before there were names and times have neither; sessions have no texts."""
    position, recorded_by, recorded_at, *erased = receipt
    said = {"position": position, "recorded_by": recorded_by, "recorded_at_ms": recorded_at or 0}
    return said | {"erased": True} if any(erased) else said


class _Wire:
    """What a row of the table is on the wire. Nearly all columns are the same in both."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._names = tuple(column.wire_name for column in columns)
        self._others = [(column.wire_name, load) for column in columns if (load := column.loader()) is not None]
        self._paths = [(name, *name.split(".")) for name in self._names if "." in name]

    def fields(self, values: Values) -> Any:
        """A dictionary of the fields, which protobuf takes in the place of a message, and its types do not."""
        fields = dict(zip(self._names, values, strict=True))
        for name, load in self._others:
            fields[name] = load(fields[name])
        for path, message, name in self._paths:
            value = fields.pop(path)
            if value is not None:  # a message of which nothing is known is not set
                fields.setdefault(message, {})[name] = value
        return fields


_TOOL_CALL_WIRE, _COST_WIRE, _SESSION_WIRE, _CONTROL_WIRE = map(
    _Wire, (TOOL_CALL_COLUMNS, COST_COLUMNS, SESSION_COLUMNS, CONTROL_COLUMNS)
)
