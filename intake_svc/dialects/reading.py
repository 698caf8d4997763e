"""What the telemetry of other agents says, as rows of the record."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
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
    counted_by: str = ""
    """Who counts, where the numbers may go on from one session to the next; empty where they do not."""


class Labelled(NamedTuple):
    """Where a session is, as far as it is told."""

    session_id: str
    """As the session's rows have it."""
    engine: str
    repository: str
    """Its URL or name, without a user; empty where it is not told."""
    branch: str
    at_ms: int
    """When it was so, in milliseconds since 1970-01-01 UTC."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The rows of one export, redacted and ready for the spool, and what is to be told of the rest of it.

    The same export always gives the same rows with the same ids: sent again, they are duplicates at the ledger.
    """

    calls: tuple[audit_pb2.AuditRow, ...] = ()
    """Tool calls that ended, or were refused."""
    costs: tuple[audit_pb2.CostRow, ...] = ()
    """Model requests."""
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
    labels: tuple[Labelled, ...] = ()
    """Where sessions are."""
    engines: frozenset[str] = field(default=frozenset(), compare=False)
    """The dialects that were read, and maybe found nothing."""


def joined(readings: Sequence[Reading]) -> Reading:
    """All in one, in time that grows with what they hold."""
    return Reading(
        calls=tuple(chain.from_iterable(one.calls for one in readings)),
        costs=tuple(chain.from_iterable(one.costs for one in readings)),
        not_understood=tuple(chain.from_iterable(one.not_understood for one in readings)),
        ignored=sum(one.ignored for one in readings),
        sequence=tuple(chain.from_iterable(one.sequence for one in readings)),
        intents=tuple(chain.from_iterable(one.intents for one in readings)),
        labels=tuple(chain.from_iterable(one.labels for one in readings)),
        engines=frozenset(chain.from_iterable(one.engines for one in readings)),
    )
