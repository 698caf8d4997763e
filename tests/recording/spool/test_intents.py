"""Intents: a call that never came back has a row, and one that did has only its own."""

from pathlib import Path

from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from recording.logger import Row
from tests.recording.samples import crash, ids, intent, opened, read_all, segments_of, tool_call


def interrupted(rows: list[Row]) -> list[str]:
    return [
        row.id for row in rows if isinstance(row, audit_pb2.AuditRow) and row.outcome == common_pb2.OUTCOME_INTERRUPTED
    ]


def test_an_intent_is_sent_only_through_its_outcome(tmp_path: Path) -> None:
    with opened(tmp_path) as spool:
        spool.append_intent(intent(1))
        assert read_all(spool) == []
        spool.append(tool_call(1))
        assert read_all(spool) == [tool_call(1)]
    with opened(tmp_path) as spool:
        assert read_all(spool) == []
        assert spool.counters.interrupted == 0


def test_a_call_that_a_kill_cut_short_becomes_an_interrupted_row(tmp_path: Path) -> None:
    with opened(tmp_path / "state") as spool:
        for number in (1, 2, 3):
            spool.append_intent(intent(number))
        spool.append(tool_call(2))
        left = crash(tmp_path / "state")
    with opened(left) as spool:
        rows = read_all(spool)
        assert ids(rows) == ["call-2", "call-1", "call-3"]
        expected = intent(1)
        expected.outcome = common_pb2.OUTCOME_INTERRUPTED
        expected.error = "interrupted: the gateway ended while the tool ran, so whether it finished is not known"
        assert rows[1] == expected
        assert spool.counters.interrupted == 2


def test_recovering_twice_makes_the_same_rows(tmp_path: Path) -> None:
    """A crash during recovery must give duplicates, which the ledger takes, and not other content, which it rejects."""
    with opened(tmp_path / "state") as spool:
        spool.append_intent(intent(1))
        left = crash(tmp_path / "state")
    with opened(left) as spool:
        again = crash(left)
        first = read_all(spool, ack=False)
        third = crash(left)
    with opened(again) as spool:
        assert read_all(spool) == first
    with opened(third) as spool:
        assert read_all(spool) == first
        assert spool.counters.interrupted == 0


def test_an_open_intent_outlives_the_segment_that_it_was_written_to(tmp_path: Path) -> None:
    """A tool may run for hours while other rows fill segments, are acked, and go."""
    state_dir = tmp_path / "state"
    with opened(state_dir, max_bytes=2**20, sync_interval_ms=1) as spool:
        spool.append_intent(intent(0))
        first = segments_of(state_dir)[0]
        for number in range(1, 4000):
            spool.append(tool_call(number))
            if number % 500 == 0:
                read_all(spool)
        read_all(spool)
        while first.exists():
            pass
        left = crash(state_dir)
        spool.append(tool_call(0))
        assert ids(read_all(spool)) == ["call-0"]
        finished = crash(state_dir)
    with opened(left) as spool:
        assert interrupted(read_all(spool)) == ["call-0"]
    with opened(finished) as spool:
        assert interrupted(read_all(spool)) == []


def test_segments_with_intents_of_a_dead_process_stay_until_its_outcomes_are_read(tmp_path: Path) -> None:
    """Recovery that dies half-way, after acks, must find the intents again."""
    state_dir = tmp_path / "state"
    with opened(state_dir, max_bytes=2**20) as spool:
        spool.append_intent(intent(0))
        spool.append_intent(intent(1))
        for number in range(2, 4000):
            spool.append(tool_call(number))
        spool.append(tool_call(1))
        left = crash(state_dir)
    with opened(left, max_bytes=2**20, sync_interval_ms=1) as spool:
        for _ in range(20):
            batch = spool.read(100, 2**20)
            assert batch is not None
            spool.ack(batch)
        spool._keep()
        again = crash(left)
    with opened(again) as spool:
        assert interrupted(read_all(spool)) == ["call-0"]


def test_an_outcome_whose_intent_lies_among_acked_rows_closes_it(tmp_path: Path) -> None:
    with opened(tmp_path / "state") as spool:
        spool.append_intent(intent(1))
        spool.append(tool_call(2))
        read_all(spool)
        spool.append(tool_call(1))
        left = crash(tmp_path / "state")
    with opened(left) as spool:
        rows = read_all(spool)
        assert (ids(rows), interrupted(rows)) == (["call-1"], [])
