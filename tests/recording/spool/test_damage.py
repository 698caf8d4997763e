"""Damaged segments: each kind of damage costs what it hit, is set aside, counted, and shows as missing numbers."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from recording.framing import HEADER
from recording.spool.segments import SEGMENT_HEADER
from tests.recording.samples import ids, opened, read_all, segments_of, tool_call

ROWS = 40


def fill(state_dir: Path) -> list[int]:
    """A segment of ROWS rows; returns the offsets at which they begin."""
    offsets = []
    with opened(state_dir) as spool:
        for number in range(1, ROWS + 1):
            offsets.append(spool.spooled_bytes or len(SEGMENT_HEADER))
            spool.append(tool_call(number))
    return offsets


def flip(segment: Path, offset: int) -> None:
    data = bytearray(segment.read_bytes())
    data[offset] ^= 0x10
    segment.write_bytes(data)


def cut(segment: Path, size: int) -> None:
    segment.write_bytes(segment.read_bytes()[:size])


Damaging = Callable[[Path, list[int]], object]

LENGTH, CHECKSUM, MAGIC, NUMBER, KIND = 8, 4, 0, 12, 20

# What is done to a segment of 40 rows, and which rows that may cost.
TABLE: list[tuple[str, Damaging, set[int]]] = [
    ("bit in a magic", lambda s, at: flip(s, at[9] + MAGIC), {10}),
    ("bit in a checksum", lambda s, at: flip(s, at[9] + CHECKSUM), {10}),
    ("bit in a length", lambda s, at: flip(s, at[9] + LENGTH), {10}),
    ("high bit in a length", lambda s, at: flip(s, at[9] + LENGTH + 3), {10}),
    ("bit in a number", lambda s, at: flip(s, at[9] + NUMBER), {10}),
    ("bit in a kind", lambda s, at: flip(s, at[9] + KIND), {10}),
    ("bit in a payload", lambda s, at: flip(s, at[9] + HEADER.size + 30), {10}),
    ("bit in the first record", lambda s, at: flip(s, at[0] + HEADER.size), {1}),
    ("bit in the last record", lambda s, at: flip(s, at[-1] + HEADER.size), {ROWS}),
    ("length of the last record", lambda s, at: flip(s, at[-1] + LENGTH + 1), {ROWS}),
    ("bit in the segment's header", lambda s, at: flip(s, 3), set()),
    ("version of the segment's header", lambda s, at: flip(s, 12), set()),
    ("torn header", lambda s, at: cut(s, at[-1] + 10), {ROWS}),
    ("torn payload", lambda s, at: cut(s, at[-1] + HEADER.size + 10), {ROWS}),
    ("zeros in the middle", lambda s, at: s.write_bytes(
        s.read_bytes()[: at[4]] + bytes(at[8] - at[4]) + s.read_bytes()[at[8] :]), {5, 6, 7, 8}),
    ("a piece missing", lambda s, at: s.write_bytes(s.read_bytes()[: at[4]] + s.read_bytes()[at[8] :]), {5, 6, 7, 8}),
    ("half a record missing", lambda s, at: s.write_bytes(
        s.read_bytes()[: at[4] + 9] + s.read_bytes()[at[5] + 50 :]), {5, 6}),
    ("zeros behind", lambda s, at: s.write_bytes(s.read_bytes() + bytes(5000)), set()),
    ("garbage behind", lambda s, at: s.write_bytes(s.read_bytes() + b"\xffrec garbage" * 40), set()),
    ("garbage between", lambda s, at: s.write_bytes(
        s.read_bytes()[: at[4]] + b"\xffrec" * 99 + s.read_bytes()[at[4] :]), set()),
    ("nothing but garbage", lambda s, at: s.write_bytes(b"not a spool at all\n" * 500), set(range(1, ROWS + 1))),
]  # fmt: skip


@pytest.mark.parametrize(("damaging", "cost"), [entry[1:] for entry in TABLE], ids=[entry[0] for entry in TABLE])
def test_damage_costs_what_it_hit_and_the_rest_goes_on(tmp_path: Path, damaging: Damaging, cost: set[int]) -> None:
    offsets = fill(tmp_path)
    (segment,) = segments_of(tmp_path)
    damaging(segment, offsets)
    with opened(tmp_path) as spool:
        spool.append(tool_call(99))
        covered: set[int] = set()
        rows = []
        while (batch := spool.read(7, 2**20)) is not None:
            if batch.payloads:
                covered |= set(range(batch.first, batch.last + 1))
                rows += batch.numbers
                spool.ack(batch)
        expected = [number for number in range(1, ROWS + 1) if number not in cost]
        assert rows[:-1] == expected
        assert not covered & cost, "the ledger would believe that it has what was lost"
        missing = set(range(1, rows[-1])) - covered
        assert spool.counters.missing == len(missing)
        assert missing >= cost
        assert spool.counters.quarantined <= 1


@pytest.mark.parametrize("behind", [bytes(5000), b"\xffrec garbage" * 40, b"!"])
def test_damage_behind_the_last_record_shows_as_missing_rows(tmp_path: Path, behind: bytes) -> None:
    """What lay there cannot be told, so that the ledger must not believe that it has everything."""
    fill(tmp_path)
    (segment,) = segments_of(tmp_path)
    segment.write_bytes(segment.read_bytes() + behind)
    with opened(tmp_path) as spool:
        spool.append(tool_call(99))
        assert len(read_all(spool)) == ROWS + 1
        assert spool.counters.quarantined == 1
        assert spool.counters.missing >= 1


@pytest.mark.parametrize("begun", [0, 2, 10, 60], ids=["whole", "in a magic", "in a header", "in a payload"])
def test_zeros_at_the_end_are_a_torn_tail_and_accuse_one_record(tmp_path: Path, begun: int) -> None:
    """A power cut can leave a file its new size without its bytes: eight megabytes of zeros are not 399,458 records."""
    offsets = fill(tmp_path)
    (segment,) = segments_of(tmp_path)
    size = offsets[-1] + begun if begun else segment.stat().st_size
    segment.write_bytes(segment.read_bytes()[:size] + bytes(8 * 2**20))
    with opened(tmp_path) as spool:
        spool.append(tool_call(99))
        assert len(read_all(spool)) == (ROWS if begun else ROWS + 1)
        assert (spool.counters.quarantined, spool.counters.missing) == (1, 1)


def test_a_quarantine_that_cannot_be_written_holds_up_no_row_behind_the_damage(tmp_path: Path) -> None:
    offsets = fill(tmp_path)
    (segment,) = segments_of(tmp_path)
    flip(segment, offsets[9] + HEADER.size)
    (tmp_path / "spool" / "quarantine").write_text("no folder")
    with opened(tmp_path) as spool:
        assert len(read_all(spool)) == ROWS - 1
        assert (spool.counters.quarantined, spool.counters.missing) == (1, 1)


def test_damaged_bytes_are_set_aside_once_with_the_reason(tmp_path: Path) -> None:
    offsets = fill(tmp_path)
    (segment,) = segments_of(tmp_path)
    flip(segment, offsets[9] + HEADER.size)
    bad = segment.read_bytes()[offsets[9] : offsets[10]]
    for _ in range(2):
        with opened(tmp_path) as spool:
            read_all(spool, ack=False)
            spool.rewind()
            read_all(spool, ack=False)
    (file,) = (tmp_path / "spool" / "quarantine").iterdir()
    about, _, data = file.read_bytes().partition(b"\n")
    assert data == bad
    assert json.loads(about) == {
        "producer_id": spool.id,
        "segment": segment.name,
        "start": offsets[9],
        "stop": offsets[10],
        "reason": "the checksum does not fit",
    }


def test_a_segment_that_is_gone_shows_as_missing_and_the_rest_goes_on(tmp_path: Path) -> None:
    with opened(tmp_path, max_bytes=2**20) as spool:
        for number in range(1, 4001):
            spool.append(tool_call(number))
    gone = segments_of(tmp_path)[1]
    low, high = int(gone.stem), int(segments_of(tmp_path)[2].stem)
    gone.unlink()
    with opened(tmp_path) as spool:
        rows = read_all(spool)
        assert ids(rows) == [f"call-{number}" for number in range(1, 4001) if not low <= number < high]
        assert spool.counters.missing == high - low


def test_a_segment_that_vanishes_while_it_waits_to_be_read_stops_nothing(tmp_path: Path) -> None:
    with opened(tmp_path, max_bytes=2**20) as spool:
        for number in range(1, 2001):
            spool.append(tool_call(number))
        spool.sync()
        gone = segments_of(tmp_path)
        for path in gone:
            path.unlink()
        first_of_last = int(gone[-1].stem)
        assert ids(read_all(spool)) == [f"call-{number}" for number in range(first_of_last, 2001)], "it has that open"
        assert not spool.has_unread(), "the sender would look for them for ever"
        spool.append(tool_call(2001))


def test_two_runs_with_torn_tails_lose_only_the_tails(tmp_path: Path) -> None:
    """A torn tail stays in its segment: nothing is ever written behind it."""
    for run in range(3):
        with opened(tmp_path) as spool:
            spool.append(tool_call(2 * run))
            spool.append(tool_call(2 * run + 1))
        last = segments_of(tmp_path)[-1]
        cut(last, last.stat().st_size - 1)
    with opened(tmp_path) as spool:
        assert ids(read_all(spool)) == ["call-0", "call-2", "call-4"]
        assert spool.counters.quarantined == 3


@pytest.mark.parametrize("size", range(len(SEGMENT_HEADER) + 1))
def test_a_segment_that_was_only_begun_leaves_no_hole(tmp_path: Path, size: int) -> None:
    """A kill between the making of a segment and its first record has lost nothing, so nothing may seem missing."""
    fill(tmp_path)
    (segment,) = segments_of(tmp_path)
    segment.with_name(f"{ROWS + 1:020d}.segment").write_bytes(SEGMENT_HEADER[:size])
    with opened(tmp_path) as spool:
        spool.append(tool_call(ROWS + 1))
        assert len(read_all(spool)) == ROWS + 1
        assert (spool.counters.missing, spool.counters.quarantined) == (0, 0)
