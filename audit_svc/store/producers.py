"""What each producer has sent: the highest number of its sequence, and the numbers below it that never came."""

import apsw


def cover(connection: apsw.Connection, producer_id: str, first: int, last: int, now_ms: int) -> None:
    """Notes, in the open transaction, that the producer's numbers first to last have come. Numbers begin at 1."""
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


def _close_gaps(connection: apsw.Connection, producer_id: str, first: int, last: int) -> None:
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


def _add_gap(connection: apsw.Connection, producer_id: str, first: int, last: int) -> None:
    connection.execute("INSERT INTO producer_gaps VALUES (?, ?, ?)", (producer_id, first, last))
