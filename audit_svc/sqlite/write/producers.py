"""What each producer has sent: its highest record number, and the lower numbers that never came."""

from audit_svc.sqlite.open.connection import Connection

_GO_ON = "UPDATE producers SET highest_sequence = ?, last_seen_at = ? WHERE id = ? AND highest_sequence = ?"


class ReceivedRanges:
    """The record numbers received in a transaction. Adjacent ranges of a producer are merged."""

    def __init__(self, connection: Connection, now_ms: int) -> None:
        self._connection = connection
        self._now_ms = now_ms
        self._ranges: dict[str, tuple[int, int]] = {}

    def add(self, producer_id: str, first: int, last: int) -> None:
        """Adds the range first to last of a producer."""
        before = self._ranges.get(producer_id)
        if before is not None and first == before[1] + 1:
            first = before[0]
        elif before is not None:
            cover(self._connection, producer_id, *before, self._now_ms)
        self._ranges[producer_id] = first, last

    def write(self) -> None:
        """Stores the ranges in the open transaction."""
        for producer_id, (first, last) in self._ranges.items():
            cover(self._connection, producer_id, first, last, self._now_ms)


def cover(connection: Connection, producer_id: str, first: int, last: int, now_ms: int) -> None:
    """Notes, in the open transaction, that the producer's numbers first to last have come. Numbers begin at 1."""
    # Nearly always they are the next, and it is one statement.
    connection.execute(_GO_ON, (last, now_ms, producer_id, first - 1))
    if connection.changes():
        return
    row = connection.execute("SELECT highest_sequence FROM producers WHERE id = ?", (producer_id,)).fetchone()
    highest = row[0] if row is not None else 0
    connection.execute(
        "INSERT INTO producers VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
        "highest_sequence = max(highest_sequence, excluded.highest_sequence), last_seen_at = excluded.last_seen_at",
        (producer_id, last, now_ms, now_ms),
    )
    if first > highest + 1:
        _add_gap(connection, producer_id, highest + 1, first - 1)
    elif first <= highest:
        _close_gaps(connection, producer_id, first, last)


def _close_gaps(connection: Connection, producer_id: str, first: int, last: int) -> None:
    gaps = connection.execute(
        "DELETE FROM producer_gaps WHERE producer_id = ? AND first_sequence <= ? AND last_sequence >= ? "
        "RETURNING first_sequence, last_sequence",
        (producer_id, last, first),
    )
    for gap_first, gap_last in list(gaps):
        if gap_first < first:
            _add_gap(connection, producer_id, gap_first, first - 1)
        if gap_last > last:
            _add_gap(connection, producer_id, last + 1, gap_last)


def _add_gap(connection: Connection, producer_id: str, first: int, last: int) -> None:
    connection.execute("INSERT INTO producer_gaps VALUES (?, ?, ?)", (producer_id, first, last))
