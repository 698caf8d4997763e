"""A spool or a disk that is full: nothing crashes, nothing is lost in silence, and it goes on when there is room."""

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

import pytest
from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from recording.logger import Row
from recording.spool import Spool, appender
from recording.spool.gap import GAP_TOOL_NAME
from tests.recording.samples import crash, ids, intent, open_spool, opened, read_all, tool_call
from tests.support.small_disk import hog, mounted_at

FULL = {"max_bytes": 2**20, "sync_interval_ms": 1}


def fill(spool: Spool, first: int = 1000) -> int:
    """Appends rows until one is not taken; returns how many were."""
    taken = 0
    while spool.append(tool_call(first + taken, args_summary="x" * 500)):
        taken += 1
    return taken


def is_gap(row: Row) -> TypeGuard[audit_pb2.AuditRow]:
    return isinstance(row, audit_pb2.AuditRow) and row.tool_name == GAP_TOOL_NAME


def gap_of(rows: list[Row]) -> audit_pb2.AuditRow:
    (gap,) = filter(is_gap, rows)
    return gap


def read_until_gap(spool: Spool) -> list[Row]:
    rows: list[Row] = []
    while not any(map(is_gap, rows)):
        rows += read_all(spool)
    return rows


def test_a_full_spool_drops_counts_and_tells_by_one_row(tmp_path: Path) -> None:
    with opened(tmp_path, **FULL) as spool:
        taken = fill(spool)
        assert spool.spooled_bytes <= 2**20
        for number in range(4):
            assert not spool.append(tool_call(number, args_summary="x" * 500))
        assert not spool.append(audit_pb2.CostRow(id="cost", error="x" * 500))
        assert not spool.append(audit_pb2.SessionRow(id="session", model="x" * 500))
        rows = read_until_gap(spool)
        gap = gap_of(rows)
        assert spool.append(tool_call(5))
        assert ids(read_all(spool)) == ["call-5"]
    assert ids(rows)[:taken] == [f"call-{1000 + number}" for number in range(taken)]
    counts = json.loads(gap.args_summary)
    assert (counts["tool_calls"], counts["model_requests"], counts["session_states"]) == (5, 1, 1)
    assert spool.counters.dropped == 7
    assert spool.counters.accepted == taken + 1
    assert gap.outcome == common_pb2.OUTCOME_FAILED
    assert gap.error.startswith("5 tool calls between 20")
    assert gap.created_at_ms == counts["from_ms"] <= counts["to_ms"]


def test_a_listener_hears_of_a_row_that_nobody_appends_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gap row, or an outcome that the disk did not take before: nothing else may come for hours."""
    written = threading.Event()
    with opened(tmp_path, sync_interval_ms=1) as spool:
        assert read_all(spool) == []
        assert spool.listen(written.set)
        assert not spool.append(tool_call(1, args_summary="x" * 10_000_000))
        assert written.wait(30)
        gap_of(read_all(spool))

        written.clear()
        assert spool.append_intent(intent(2))
        assert read_all(spool) == []
        with monkeypatch.context() as broken:
            broken.setattr(os, "write", lambda fd, data: fail(5, "Input/output error"))
            assert spool.append(tool_call(2))
            assert spool.listen(written.set)
        assert written.wait(30)
        assert ids(read_all(spool)) == ["call-2"]


def test_a_gap_is_told_even_when_the_process_dies_while_the_spool_is_full(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    with opened(state_dir, **FULL) as spool:
        fill(spool)
        spool.append(tool_call(1, args_summary="x" * 500))
        spool.note_unrecorded("call-2")
        left = crash(state_dir)
    with opened(left, max_bytes=2**21, sync_interval_ms=1) as spool:
        counts = json.loads(gap_of(read_until_gap(spool)).args_summary)
        assert counts["tool_calls"] == 3, "two that were dropped, and one that ran and was not to be"


def test_a_gap_is_told_at_close_though_the_spool_is_still_full(tmp_path: Path) -> None:
    with opened(tmp_path, **FULL) as spool:
        fill(spool)
    with opened(tmp_path) as spool:
        gap_of(read_all(spool))


def test_a_call_that_ran_without_intent_is_no_gap_when_its_outcome_is_taken(tmp_path: Path) -> None:
    with opened(tmp_path, sync_interval_ms=1) as spool:
        spool.note_unrecorded("call-1")
        spool.append(tool_call(1))
    with opened(tmp_path) as spool:
        assert ids(read_all(spool)) == ["call-1"]


def test_the_outcome_of_a_taken_intent_is_always_taken(tmp_path: Path) -> None:
    """Room for it is kept free, up to the largest row that can be."""
    with opened(tmp_path, **FULL) as spool:
        for number in range(10):
            assert spool.append_intent(intent(number))
        fill(spool)
        assert not spool.append_intent(intent(99))
        for number in range(10):
            assert spool.append(tool_call(number, args_summary="x" * 4096, error="y" * 2048))
        assert spool.spooled_bytes <= 2**20
        rows = [row for row in read_all(spool) if not is_gap(row)]
        assert ids(rows)[-10:] == [f"call-{number}" for number in range(10)]


def test_a_row_too_large_to_be_stored_is_told_and_does_not_stay_open(tmp_path: Path) -> None:
    with opened(tmp_path / "state", sync_interval_ms=1) as spool:
        assert spool.append_intent(intent(1))
        assert not spool.append(tool_call(1, args_summary="x" * 10_000_000))
        assert not spool.append_intent(tool_call(2, args_summary="x" * 10_000_000))
        gap_of(read_until_gap(spool))
        assert spool.append(tool_call(3))
        assert ids(read_all(spool)) == ["call-3"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted_at(tmp_path / "disk") as disk:
        yield disk


def test_a_full_disk_is_a_full_spool_and_it_recovers(small_disk: Path) -> None:
    spool = open_spool(small_disk, sync_interval_ms=1)
    large = "x" * 5000
    try:
        assert spool.append_intent(intent(1))
        for number in range(10, 20):
            assert spool.append(tool_call(number))
        hog_file = hog(small_disk)
        fill(spool)
        assert not spool.append_intent(tool_call(3, args_summary=large))
        assert not spool.append(tool_call(2, args_summary=large))
        assert not spool.append(tool_call(3, args_summary=large))
        assert spool.append(tool_call(1, args_summary=large)), "room was kept for it"
        hog_file.unlink()
        rows: list[Row] = []
        told = 0
        while "call-1" not in ids(rows) or told < 3:
            rows += (new := read_all(spool))
            told += sum(json.loads(row.args_summary)["tool_calls"] for row in new if is_gap(row))
        assert told == 3, "these two, and the one that was one too many"
        assert ids(rows)[:10] == [f"call-{number}" for number in range(10, 20)]
        spool.append(tool_call(4))
        assert ids(read_all(spool)) == ["call-4"]
        assert spool.counters.quarantined == spool.counters.missing == 0, "a write that was cut short left nothing"
    finally:
        spool.close()


def test_outcomes_survive_a_kill_on_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    """Also where they go beyond the size at which a segment ends: no other could be begun."""
    spool = open_spool(small_disk, max_bytes=2**20)
    calls = range(20)
    try:
        for number in calls:
            assert spool.append_intent(intent(number))
        hog(small_disk)
        fill(spool)
        for number in calls:
            assert spool.append(tool_call(number, args_summary="x" * 4096, error="y" * 2048))
        left = crash(small_disk)
    finally:
        spool.close()
    with opened(left) as spool:
        rows = {row.id: row for row in read_all(spool) if isinstance(row, audit_pb2.AuditRow)}
        assert {rows[f"call-{number}"].outcome for number in calls} == {common_pb2.OUTCOME_SUCCEEDED}


def test_a_disk_that_takes_no_new_segment_is_full_too(small_disk: Path) -> None:
    hog_file = hog(small_disk)
    hog_file.write_bytes(hog_file.read_bytes()[:-20_000])
    spool = open_spool(small_disk, sync_interval_ms=1)
    try:
        hog(small_disk)
        assert not spool.append(tool_call(1))
        (small_disk / "hog").unlink()
        gap_of(read_until_gap(spool))
    finally:
        spool.close()


def fail(error: int, message: str) -> None:
    raise OSError(error, message)


def test_a_failed_sync_begins_another_segment_and_keeps_every_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failed fsync the system may count the old pages as written, and a later success would mean nothing."""
    with opened(tmp_path, sync="always") as spool:
        assert spool.append(tool_call(1))
        assert spool.sync()
        with monkeypatch.context() as broken:
            broken.setattr(os, "fdatasync", lambda fd: fail(5, "Input/output error"))
            assert spool.append(tool_call(2)), "it survives a kill"
            assert not spool.sync()
            assert spool.append_intent(intent(3))
            assert not spool.sync()
        assert spool.counters.sync_failures >= 2
        assert spool.append_intent(intent(4))
        assert spool.sync()
        assert not spool.sync_failed
        assert ids(read_all(spool)) == ["call-1", "call-2"]
        assert len({path.name for path in tmp_path.rglob("*.segment")}) > 1


def test_a_spool_that_could_not_sync_recovers_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In mode strict nothing is appended meanwhile, so that nothing but the spool itself can find out."""
    with opened(tmp_path, sync_interval_ms=1) as spool:
        with monkeypatch.context() as broken:
            broken.setattr(os, "fdatasync", lambda fd: fail(28, "No space left on device"))
            spool.append(tool_call(1))
            while not spool.sync_failed:
                pass
        while spool.sync_failed:
            pass
        assert ids(read_all(spool)) == ["call-1"]


def test_a_spool_says_whether_it_can_be_written_though_nobody_writes(small_disk: Path) -> None:
    """It can as long as the room that it has allocated lasts, and takes an intent until then."""
    spool = open_spool(small_disk, sync_interval_ms=1)
    try:
        hog_file = hog(small_disk)
        assert spool.trouble() == "the spool cannot be written: No space left on device"
        assert not spool.append_intent(intent(1))
        hog_file.unlink()
        assert spool.trouble() == ""
        assert spool.append_intent(intent(2))
        hog_file = hog(small_disk)
        number = 3
        while not spool.trouble():
            assert spool.append_intent(intent(number))
            number += 1
        while spool.append_intent(tool_call(number, args_summary="x" * 4096)):
            number += 1
        assert spool.trouble()
        hog_file.unlink()
        assert spool.trouble() == ""
        assert spool.append_intent(intent(number)), "at once: nothing is to be waited for"
    finally:
        spool.close()


def test_a_disk_that_refuses_writes_is_tried_until_it_takes_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Allocated space says nothing about such a disk."""
    with opened(tmp_path) as spool:
        assert spool.append(tool_call(1))
        assert spool.trouble() == ""
        with monkeypatch.context() as broken:
            broken.setattr(os, "write", lambda fd, data: fail(5, "Input/output error"))
            assert not spool.append_intent(intent(2))
            assert spool.trouble() == spool.trouble() == "the spool cannot be written: Input/output error"
        assert spool.trouble() == ""
        assert spool.append_intent(intent(3))
        assert spool.append(tool_call(3))
        assert ids(read_all(spool)) == ["call-1", "call-3"]
        assert spool.counters.quarantined == spool.counters.missing == 0


def test_a_file_system_that_allocates_nothing_is_tried_by_a_write_that_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appender, "keep_room", lambda fd, offset, size: False)
    with opened(tmp_path) as spool:
        assert spool.append(tool_call(1))
        (segment,) = tmp_path.rglob("*.segment")
        size = segment.stat().st_size
        assert spool.trouble() == ""
        assert segment.stat().st_size == size
        with monkeypatch.context() as broken:
            broken.setattr(os, "write", lambda fd, data: fail(28, "No space left on device"))
            assert spool.trouble() == "the spool cannot be written: No space left on device"
        assert spool.append(tool_call(2))
        assert ids(read_all(spool)) == ["call-1", "call-2"]


def test_a_spool_at_its_bound_or_that_cannot_sync_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path / "bound", **FULL) as spool:
        assert spool.trouble() == ""
        fill(spool)
        assert spool.trouble().startswith("the spool is full: ")
    with opened(tmp_path / "sync", sync="always") as spool:
        with monkeypatch.context() as broken:
            broken.setattr(os, "fdatasync", lambda fd: fail(5, "Input/output error"))
            assert spool.append(tool_call(1))
            assert not spool.sync()
            assert spool.trouble() == "the spool's disk fails to sync"
        assert spool.sync()
        assert spool.trouble() == ""


def test_of_rows_that_come_together_a_disk_takes_whole_writes_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it refuses leaves neither damage nor missing numbers, and all are taken when they are brought again."""
    rows = [tool_call(number, args_summary="x" * 1_000) for number in range(300)]
    writes = 0

    def write_once(fd: int, data: bytes) -> None:
        nonlocal writes
        writes += 1
        if writes == 3:  # behind the header of the segment and a first write of rows
            os.write(fd, data[: len(data) // 2])
            raise OSError(28, "No space left on device")
        os.write(fd, data)

    with opened(tmp_path) as spool:
        with monkeypatch.context() as patch:
            patch.setattr(appender, "write_whole", write_once)
            assert spool.append_all(rows) is None
        taken = ids(read_all(spool))
        assert taken == [row.id for row in rows[: len(taken)]]
        assert 0 < len(taken) < len(rows)
        monkeypatch.setattr("recording.spool.intake._RETRY_SECONDS", 0)
        while (number := spool.append_all(rows)) is None:
            pass
        assert number == len(taken) + len(rows)
        assert ids(read_all(spool)) == [row.id for row in rows]
        assert spool.counters.quarantined == spool.counters.missing == spool.counters.dropped == 0
