"""Records as readers get them: a producer's row from the values of its table, and beside it what the ledger says."""

from collections.abc import Sequence
from typing import Any

from onrecord.audit.v1 import questions_pb2

from audit_svc.ledger.columns import Column
from audit_svc.ledger.tables import CONTROL_COLUMNS, COST_COLUMNS, SESSION_COLUMNS, TOOL_CALL_COLUMNS
from audit_svc.ledger.valid_rows import Values


def tool_call_record(receipt: Values, values: Values) -> questions_pb2.ToolCallRecord:
    """A tool call, from its position, recorded_by, recorded_at and erased, and the values of TOOL_CALL_COLUMNS."""
    return questions_pb2.ToolCallRecord(**_tool_call(receipt, values))


def model_request_record(receipt: Values, values: Values) -> questions_pb2.ModelRequestRecord:
    """A model request, from its position, recorded_by, recorded_at and erased, and the values of COST_COLUMNS."""
    return questions_pb2.ModelRequestRecord(**_model_request(receipt, values))


def session_record(receipt: Values, values: Values, labels: dict[str, str]) -> questions_pb2.SessionRecord:
    """A session, from its position, recorded_by and recorded_at, and the values of SESSION_COLUMNS."""
    session = _SESSION_WIRE.fields(values)
    session["labels"] = labels
    return questions_pb2.SessionRecord(session=session, receipt=_receipt(receipt))


def control_record(receipt: Values, values: Values) -> questions_pb2.ControlRecord:
    """An act of control, from its position, recorded_by, recorded_at and erased, and the values of CONTROL_COLUMNS."""
    return questions_pb2.ControlRecord(control=_CONTROL_WIRE.fields(values), receipt=_receipt(receipt))


def tool_call_entry(receipt: Values, values: Values) -> questions_pb2.Entry:
    """An entry of a timeline, from what tool_call_record() takes."""
    record = _tool_call(receipt, values)
    return questions_pb2.Entry(tool_call=record, **_place(record["tool_call"]))


def model_request_entry(receipt: Values, values: Values) -> questions_pb2.Entry:
    """An entry of a timeline, from what model_request_record() takes."""
    record = _model_request(receipt, values)
    return questions_pb2.Entry(model_request=record, **_place(record["model_request"]))


# The fields of messages as dictionaries, which protobuf takes in the place of them and its types do not. They are set
# in their place: a message that is made first would be copied.


def _tool_call(receipt: Values, values: Values) -> Any:
    return {"tool_call": _TOOL_CALL_WIRE.fields(values), "receipt": _receipt(receipt)}


def _model_request(receipt: Values, values: Values) -> Any:
    return {"model_request": _COST_WIRE.fields(values), "receipt": _receipt(receipt)}


def _receipt(receipt: Values) -> Any:
    """Rows from before there were names and times have neither; sessions have no texts."""
    position, recorded_by, recorded_at, *erased = receipt
    said = {"position": position, "recorded_by": recorded_by, "recorded_at_ms": recorded_at or 0}
    return said | {"erased": True} if any(erased) else said


def _place(row: Any) -> Any:
    """Where in a timeline a row is, told beside it."""
    return {"at_ms": row["created_at_ms"], "session_id": row["session_id"], "turn_id": row.get("turn_id")}


class _Wire:
    """What a row of the table is on the wire. Nearly all columns are the same in both; null is not set."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._names = tuple(column.wire_name for column in columns)
        self._others = [(column.wire_name, load) for column in columns if (load := column.loader()) is not None]
        self._paths = [(name, *name.split(".")) for name in self._names if "." in name]

    def fields(self, values: Values) -> Any:
        """The fields of the row."""
        fields = {name: value for name, value in zip(self._names, values, strict=True) if value is not None}
        for name, load in self._others:
            if name in fields:
                fields[name] = load(fields[name])
        for path, message, name in self._paths:
            if path in fields:
                fields.setdefault(message, {})[name] = fields.pop(path)
        return fields


_TOOL_CALL_WIRE, _COST_WIRE, _SESSION_WIRE, _CONTROL_WIRE = map(
    _Wire, (TOOL_CALL_COLUMNS, COST_COLUMNS, SESSION_COLUMNS, CONTROL_COLUMNS)
)
