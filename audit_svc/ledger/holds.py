"""Legal holds: what is asked of a ledger, checked, and what a hold holds."""

from dataclasses import dataclass
from functools import cached_property

from google.protobuf.json_format import MessageToJson, Parse
from onrecord.audit.v1 import administration_pb2

from audit_svc.errors import InvalidRequest
from audit_svc.ledger.erasing import checked_reason
from audit_svc.ledger.query import Filter, filter_of
from recording.controls import has_control

MAX_HOLDS = 100
"""In place at once."""
MAX_LISTED = 1000
MAX_NAME = 128
"""Characters, also of a glob."""
_OF_SESSIONS = frozenset({"session_id", "engine", "model", "recorded_by"})
_OF_CONTROLS = frozenset({"principal", "policy_digest", "recorded_by"})


@dataclass(frozen=True)
class Scope:
    """What a hold holds."""

    filter: Filter
    tool_glob: str = ""

    @classmethod
    def read(cls, message: administration_pb2.HoldFilter) -> "Scope":
        """What a message says. Raises InvalidRequest."""
        if message.calls.args_contain:
            raise InvalidRequest(
                "filter.calls.args_contain would put a text on record: hold by who, what or when",
                "filter.calls.args_contain",
            )
        try:
            wanted = filter_of(message.calls)
        except InvalidRequest as error:
            raise InvalidRequest(f"filter.calls.{error}", f"filter.calls.{error.field}") from None
        glob = message.tool_glob
        if len(glob) > MAX_NAME or has_control(glob) or "[" in glob:
            raise InvalidRequest(
                f"filter.tool_glob has more than {MAX_NAME} characters, a control character, or a bracket",
                "filter.tool_glob",
            )
        return cls(wanted, glob)

    @cached_property
    def _is_plain(self) -> bool:
        """Whether nothing is asked for but columns that are equal to something, labels and times."""
        wanted = self.filter
        asked = (wanted.outcomes, wanted.statuses, wanted.contains, wanted.any_of)
        flags = (wanted.has_error, wanted.shadow, wanted.clock_suspect)
        return not any(asked) and flags == (None, None, None) and not self.tool_glob

    @property
    def is_of_requests(self) -> bool:
        """Whether a model request can meet it."""
        return not self.filter.is_of_calls and not self.tool_glob

    @property
    def is_of_sessions(self) -> bool:
        """Whether a session can meet it that has no rows."""
        return self._is_plain and self.filter.equal.keys() <= _OF_SESSIONS

    @property
    def is_of_controls(self) -> bool:
        """Whether an act of control can meet it."""
        return self._is_plain and not self.filter.labels and self.filter.equal.keys() <= _OF_CONTROLS


@dataclass(frozen=True, slots=True)
class Act:
    """A hold that is placed or lifted."""

    name: str
    by: str
    reason: str
    filter: administration_pb2.HoldFilter | None = None
    """None where it is lifted."""


def placing_of(request: administration_pb2.PlaceHoldRequest, by: str) -> Act:
    """What a request asks for. Raises InvalidRequest."""
    reason = checked_reason(request.reason)
    Scope.read(request.filter)
    return Act(_checked_name(request.name), by, reason, request.filter)


def lifting_of(request: administration_pb2.LiftHoldRequest, by: str) -> Act:
    """What a request asks for. Raises InvalidRequest."""
    return Act(_checked_name(request.name), by, checked_reason(request.reason))


def filter_text(message: administration_pb2.HoldFilter) -> str:
    """A filter as it stands on record: JSON on one line, its fields as the proto names them."""
    return MessageToJson(message, preserving_proto_field_name=True, indent=None, sort_keys=True)


def filter_message(text: str) -> administration_pb2.HoldFilter:
    """A filter that stands on record."""
    return Parse(text, administration_pb2.HoldFilter())


def _checked_name(name: str) -> str:
    if not name:
        raise InvalidRequest("name is empty", "name")
    if len(name) > MAX_NAME or has_control(name):
        raise InvalidRequest(f"name is longer than {MAX_NAME} characters, or has a control character", "name")
    return name
