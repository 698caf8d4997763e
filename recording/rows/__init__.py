"""The rows of the record, each built in one place. All text in them passes through rows.fit."""

from recording.row_version import ROW_VERSION
from recording.rows.control import control_row
from recording.rows.cost import cost_row
from recording.rows.session import label_row, session_row
from recording.rows.tool_call import build_audit_row, close_call, decide, end_call, open_call

__all__ = [
    "ROW_VERSION",
    "build_audit_row",
    "close_call",
    "control_row",
    "cost_row",
    "decide",
    "end_call",
    "label_row",
    "open_call",
    "session_row",
]
