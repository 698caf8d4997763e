"""What each producer has sent: its highest record number, and the lower numbers that never came.

A producer is known by its id and the name of the caller that it is: whoever says another's id has numbers of their own.
"""

from audit_svc.sql.writing import Connection, larger

_GO_ON = (
    "UPDATE producers SET highest_sequence = ?, last_seen_at = ? "
    "WHERE id = ? AND recorded_by = ? AND highest_sequence = ?"
)
_BEGIN = (
    "INSERT INTO producers VALUES (?, ?, ?, ?, ?) ON CONFLICT (id, recorded_by) DO UPDATE SET "  # noqa: S608 - ours
    f"highest_sequence = {larger('excluded.highest_sequence', 'producers.highest_sequence')}, "
    "last_seen_at = excluded.last_seen_at"
)
_HIGHEST = "SELECT highest_sequence FROM producers WHERE id = ? AND recorded_by = ?"

Producer = tuple[str, str]
"""(id, recorded_by)."""


class ReceivedRanges:
    """The record numbers received in a transaction. Adjacent ranges of a producer are merged."""

    def __init__(self, connection: Connection, now_ms: int) -> None:
        self._connection = connection
        self._now_ms = now_ms
        self._ranges: dict[Producer, tuple[int, int]] = {}

    def add(self, recorded_by: str, producer_id: str, first: int, last: int) -> None:
        """Adds the range first to last of a producer."""
        producer = producer_id, recorded_by
        before = self._ranges.get(producer)
        if before is not None and first == before[1] + 1:
            first = before[0]
        elif before is not None:
            cover(self._connection, producer, *before, self._now_ms)
        self._ranges[producer] = first, last

    def write(self) -> None:
        """Stores the ranges in the open transaction."""
        for producer, (first, last) in self._ranges.items():
            cover(self._connection, producer, first, last, self._now_ms)


def cover(connection: Connection, producer: Producer, first: int, last: int, now_ms: int) -> None:
    """Notes, in the open transaction, that the producer's numbers first to last have come. Numbers begin at 1."""
    # Nearly always they are the next, and it is one statement.
    connection.execute(_GO_ON, (last, now_ms, *producer, first - 1))
    if connection.changes():
        return
    highest = highest_of(connection, producer)
    connection.execute(_BEGIN, (*producer, last, now_ms, now_ms))
    if first > highest + 1:
        _add_gap(connection, producer, highest + 1, first - 1)
        _log(connection, "opened", producer, highest + 1, first - 1, now_ms)
    elif first <= highest:
        _close_gaps(connection, producer, first, last, now_ms)


def highest_of(connection: Connection, producer: Producer) -> int:
    """The highest number that has come of a producer; 0 when none has.

    One that got its name when a list of callers was turned on goes on where it was without one.
    """
    for name in (producer[1], ""):
        for (highest,) in connection.execute(_HIGHEST, (producer[0], name)):
            return int(highest)
    return 0


def _close_gaps(connection: Connection, producer: Producer, first: int, last: int, now_ms: int) -> None:
    gaps = connection.execute(
        "DELETE FROM producer_gaps WHERE producer_id = ? AND recorded_by = ? AND first_sequence <= ? "
        "AND last_sequence >= ? RETURNING first_sequence, last_sequence",
        (*producer, last, first),
    )
    for gap_first, gap_last in list(gaps):
        if gap_first < first:
            _add_gap(connection, producer, gap_first, first - 1)
        if gap_last > last:
            _add_gap(connection, producer, last + 1, gap_last)
        _log(connection, "closed", producer, max(first, gap_first), min(last, gap_last), now_ms)


def _add_gap(connection: Connection, producer: Producer, first: int, last: int) -> None:
    connection.execute("INSERT INTO producer_gaps VALUES (?, ?, ?, ?)", (*producer, first, last))


def _log(connection: Connection, change: str, producer: Producer, first: int, last: int, now_ms: int) -> None:
    connection.execute(
        "INSERT INTO gap_log (change, producer_id, recorded_by, first_sequence, last_sequence, recorded_at) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (change, *producer, first, last, now_ms),
    )
