"""One spool through restarts: what was taken comes out once, in order, numbered without holes."""

import os
import stat
from pathlib import Path

import pytest
from onrecord.audit.v1 import audit_pb2

from recording.delivery.dead_letters import DeadLetters
from recording.logger import Row
from recording.spool import SpoolClosed
from tests.recording.samples import (
    crash,
    folder_of,
    ids,
    opened,
    read_all,
    segments_of,
    tool_call,
)


def test_rows_come_out_as_they_went_in(tmp_path: Path) -> None:
    rows: list[Row] = [tool_call(1), audit_pb2.CostRow(id="cost"), audit_pb2.SessionRow(id="session"), tool_call(2)]
    with opened(tmp_path) as spool:
        assert all(map(spool.append, rows))
        assert read_all(spool) == rows
        assert read_all(spool) == []
        assert not spool.has_unread()


def test_batches_keep_to_their_limits_and_cover_every_number(tmp_path: Path) -> None:
    with opened(tmp_path) as spool:
        for number in range(10):
            spool.append(tool_call(number, args_summary="x" * 1000))
        batches = [spool.read(3, 2**20), spool.read(100, 2500), spool.read(100, 1), spool.read(100, 2**20)]
        assert spool.read(100, 2**20) is None
        shapes = [(batch.first, batch.last, len(batch.payloads)) for batch in batches if batch is not None]
        assert shapes == [(1, 3, 3), (4, 5, 2), (6, 6, 1), (7, 10, 4)]


def test_what_was_not_acked_is_read_again_after_a_restart(tmp_path: Path) -> None:
    with opened(tmp_path) as spool:
        for number in range(10):
            spool.append(tool_call(number))
        batch = spool.read(4, 2**20)
        assert batch is not None
        spool.ack(batch)
        spool.read(4, 2**20)
        producer_id = spool.id
    with opened(tmp_path) as spool:
        assert spool.id == producer_id
        spool.append(tool_call(10))
        batches = [spool.read(100, 2**20), spool.read(100, 2**20)]
        assert [(batch.first, batch.last) for batch in batches if batch is not None] == [(5, 10), (11, 11)]
    with opened(tmp_path) as spool:
        assert ids(read_all(spool)) == [f"call-{number}" for number in range(4, 11)]


def test_rewinding_reads_again_from_the_last_ack_and_counts_it(tmp_path: Path) -> None:
    with opened(tmp_path) as spool:
        for number in range(10):
            spool.append(tool_call(number))
        first, second = spool.read(4, 2**20), spool.read(4, 2**20)
        assert first is not None
        assert second is not None
        spool.ack(first)
        spool.rewind()
        assert spool.has_unread()
        assert ids(read_all(spool)) == [f"call-{number}" for number in range(4, 10)]
        assert spool.counters.resent == 4


def test_acked_segments_are_deleted_and_others_are_not(tmp_path: Path) -> None:
    with opened(tmp_path, max_bytes=2**20, sync_interval_ms=1) as spool:
        for number in range(4000):
            spool.append(tool_call(number))
        full = segments_of(tmp_path)
        for _ in range(20):
            batch = spool.read(100, 2**20)
            assert batch is not None
            spool.ack(batch)
        while segments_of(tmp_path) == full:
            pass
        assert batch is not None
        left = segments_of(tmp_path)
        assert left == full[-len(left) :]
        assert spool.spooled_bytes == sum(path.stat().st_size for path in left)
        assert int(left[0].stem) <= batch.last + 1 < int(left[1].stem)
        assert len(read_all(spool)) == 2000


def test_a_damaged_state_file_costs_a_resend_and_nothing_else(tmp_path: Path) -> None:
    for damage in (b"", b"onrecord/state 1" + os.urandom(80), b"\0" * 100):
        state_dir = tmp_path / str(len(damage))
        with opened(state_dir) as spool:
            spool.append(tool_call(1))
            read_all(spool)
        (folder_of(state_dir) / "state").write_bytes(damage)
        with opened(state_dir) as spool:
            spool.append(tool_call(2))
            assert ids(read_all(spool)) == ["call-1", "call-2"]


def test_nothing_is_taken_after_close_and_the_caller_is_told(tmp_path: Path) -> None:
    with opened(tmp_path) as spool:
        pass
    with pytest.raises(SpoolClosed):
        spool.append(tool_call(1))
    with pytest.raises(SpoolClosed):
        spool.append_intent(tool_call(1))


def test_nobody_else_can_read_what_is_spooled(tmp_path: Path) -> None:
    """Files are 0600 and folders 0700 even where the process's umask would give more."""
    before = os.umask(0)
    try:
        with opened(tmp_path / "state") as spool:
            spool.append(tool_call(1))
            left = crash(tmp_path / "state")
        segment = segments_of(left)[0]
        segment.write_bytes(segment.read_bytes() + b"damage")
        with opened(left) as spool:
            read_all(spool)
            batch_rows = spool.counters.quarantined
            DeadLetters(spool.root).write(spool.id, [])
        assert batch_rows == 1
    finally:
        os.umask(before)
    paths = [path for path in (left / "spool").rglob("*") if path.parent != left]
    assert len(paths) > 5
    for path in [left / "spool", *paths]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_the_age_of_the_oldest_row_that_is_not_acked_is_known(tmp_path: Path) -> None:
    with opened(tmp_path) as spool:
        assert spool.oldest_age_seconds() == 0
        spool.append_intent(tool_call(1, created_at_ms=1_000))
        spool.append(tool_call(2))
        spool.append(tool_call(3, created_at_ms=1_800_000_000_000))
        old = spool.oldest_age_seconds()
        assert old > 0
        batch = spool.read(1, 2**20)
        assert batch is not None
        spool.ack(batch)
        assert spool.oldest_age_seconds() < old
        assert spool.depth == 1
        read_all(spool)
        assert spool.oldest_age_seconds() == 0
        assert spool.depth == 0


@pytest.mark.parametrize("sync", ["always", "interval", "never"])
def test_a_kill_loses_nothing_whatever_the_sync_policy(tmp_path: Path, sync: str) -> None:
    with opened(tmp_path / "state", sync=sync) as spool:
        for number in range(100):
            spool.append(tool_call(number))
        left = crash(tmp_path / "state")
    with opened(left) as spool:
        assert ids(read_all(spool)) == [f"call-{number}" for number in range(100)]


def test_a_listener_is_called_once_by_the_next_row_and_not_when_rows_wait(tmp_path: Path) -> None:
    calls: list[int] = []
    with opened(tmp_path) as spool:
        read_all(spool)
        assert spool.listen(lambda: calls.append(1))
        spool.append_intent(tool_call(1))
        assert calls == []
        spool.append(tool_call(1))
        spool.append(tool_call(2))
        assert calls == [1]
        assert not spool.listen(lambda: calls.append(2))
