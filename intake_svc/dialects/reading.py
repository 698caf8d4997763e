"""What the telemetry of other agents says, as rows of the record."""

from dataclasses import dataclass
from typing import NamedTuple

from onrecord.audit.v1 import audit_pb2


class SequenceNumber(NamedTuple):
    """A number that a producer counts its own events with, so that one that never came can be told."""

    session_id: str
    """As the session's rows have it."""
    stream: str
    """What is counted: the dialect's name and the attribute's, such as `claude event.sequence`."""
    number: int
    """The number itself."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The rows of one export, redacted and ready for the spool, and what is to be told of the rest of it.

    The same export always gives the same rows with the same ids: sent again, they are duplicates at the ledger.
    """

    calls: tuple[audit_pb2.AuditRow, ...] = ()
    """Tool calls that ended, or were refused."""
    costs: tuple[audit_pb2.CostRow, ...] = ()
    """Model requests."""
    sessions: tuple[audit_pb2.SessionRow, ...] = ()
    """States of sessions. Empty: one export does not say when its session began nor what it sums up to."""
    not_understood: tuple[str, ...] = ()
    """Why spans or log records became no rows though they are of a known kind, or are of no known producer: one
    sentence each, of our own words."""
    ignored: int = 0
    """How many spans or log records are known, and of no interest to the record."""
    sequence: tuple[SequenceNumber, ...] = ()
    """The producer's own numbers, in the order in which they came."""
    intents: tuple[audit_pb2.AuditRow, ...] = ()
    """Calls that were allowed and whose end this export does not have: rows without an outcome. The row of the end has
    an id of its own, and the same session_id and provider_call_id."""

    def __add__(self, other: "Reading") -> "Reading":
        """Both, in this order."""
        return Reading(
            self.calls + other.calls,
            self.costs + other.costs,
            self.sessions + other.sessions,
            self.not_understood + other.not_understood,
            self.ignored + other.ignored,
            self.sequence + other.sequence,
            self.intents + other.intents,
        )
