"""The format: what was written is found again, and nothing else is."""

import errno
import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recording import framing
from recording.framing import MAGIC, Damage, Form, Record, append_whole, read_at, scan
from recording.framing import encode_record as encode

ONE, TWO = 1, 2
FORM = Form({ONE, TWO}, 2**20)

payloads = st.lists(st.binary(max_size=300), min_size=1, max_size=8)


def scan_bytes(data: bytes, number: int = 1) -> list[Record | Damage]:
    fd = os.memfd_create("segment")
    try:
        os.write(fd, data)
        return list(scan(fd, 0, len(data), number, FORM))
    finally:
        os.close(fd)


def intact(found: list[Record | Damage]) -> list[bytes]:
    return [record.payload for record in found if isinstance(record, Record)]


@given(payloads)
def test_records_are_found_as_they_were_written(written: list[bytes]) -> None:
    data = b"".join(encode(number, ONE, payload, 1) for number, payload in enumerate(written, 1))
    found = scan_bytes(data)
    assert [(r.number, r.payload) for r in found if isinstance(r, Record)] == list(enumerate(written, 1))
    assert len(found) == len(written)


@given(payloads, st.data())
def test_a_tail_torn_anywhere_costs_its_own_record_only(written: list[bytes], data: st.DataObject) -> None:
    pieces = [encode(number, ONE, payload, 1) for number, payload in enumerate(written, 1)]
    torn = data.draw(st.integers(0, len(pieces[-1]) - 1))
    found = scan_bytes(b"".join(pieces[:-1]) + pieces[-1][:torn])
    assert intact(found) == written[:-1]
    assert len(found) == len(written) - 1 + (torn > 0)


@given(payloads, st.data())
def test_a_flipped_bit_anywhere_costs_its_own_record_only(written: list[bytes], data: st.DataObject) -> None:
    pieces = [encode(number, ONE, payload, 1) for number, payload in enumerate(written, 1)]
    hit = data.draw(st.integers(0, len(pieces) - 1))
    bit = data.draw(st.integers(0, len(pieces[hit]) * 8 - 1))
    damaged = bytearray(pieces[hit])
    damaged[bit // 8] ^= 1 << bit % 8
    found = scan_bytes(b"".join([*pieces[:hit], bytes(damaged), *pieces[hit + 1 :]]))
    assert intact(found) == written[:hit] + written[hit + 1 :]


@given(st.binary(max_size=2000), payloads)
def test_garbage_before_records_hides_none(garbage: bytes, written: list[bytes]) -> None:
    data = b"".join(encode(number, ONE, payload, 1) for number, payload in enumerate(written, 1))
    assert intact(scan_bytes(garbage + data))[-len(written) :] == written


@pytest.mark.parametrize("size", [framing._CHUNK_BYTES - 30, framing._CHUNK_BYTES - 2, framing._CHUNK_BYTES + 1])
def test_a_record_behind_damage_that_crosses_a_chunk_of_reading_is_found(size: int) -> None:
    record = encode(5, ONE, b"after", 1)
    assert intact(scan_bytes(b"x" * size + record)) == [b"after"]
    assert intact(scan_bytes((MAGIC * size)[:size] + record)) == [b"after"]


def test_old_records_that_a_file_system_gave_back_are_no_rows() -> None:
    """Numbers only rise: a block of a deleted segment that turns up in a new one must not be sent again."""
    data = encode(7, ONE, b"new", 1) + encode(3, ONE, b"old", 1) + encode(8, ONE, b"newer", 1)
    found = scan_bytes(data, 7)
    assert intact(found) == [b"new", b"newer"]
    assert [damage.reason for damage in found if isinstance(damage, Damage)] == ["the number is too low"]


def damage_table() -> Iterator[tuple[str, bytes]]:
    record = encode(1, ONE, b"payload", 1)
    yield "the file ends inside a record", record[:-1]
    yield "the file ends inside a record", record[:5]
    yield "the file ends inside a record", bytes(64)
    yield "the file ends inside a record", record[:10] + bytes(64)
    yield "no record begins here", bytes(64) + b"!"
    yield "the length is impossible", record[:8] + b"\xff\xff\xff\xff" + record[12:]
    yield "the checksum does not fit", record[:-1] + b"!"
    yield "the kind is unknown", encode(1, 9, b"payload", 1)


@pytest.mark.parametrize(("reason", "data"), [*damage_table()])
def test_damage_says_what_it_is(reason: str, data: bytes) -> None:
    assert scan_bytes(data) == [Damage(0, len(data), reason)]


def test_kinds_and_versions_are_told_apart() -> None:
    found = scan_bytes(encode(1, TWO, b"a", 1) + encode(2, ONE, b"b", 7))
    assert [(record.kind, record.version) for record in found if isinstance(record, Record)] == [(TWO, 1), (ONE, 7)]


@pytest.mark.parametrize("most", [1, 7, 29])
def test_what_each_write_takes_in_part_is_written_whole(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """As write(2) may: beyond 2 GiB, at a limit, or when the disk has less room than that."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, bytes(data[:most])))
    fd = os.memfd_create("log")
    try:
        for number in (1, 2):
            append_whole(fd, encode(number, ONE, b"payload", 1))
        assert intact(list(scan(fd, 0, os.fstat(fd).st_size, 1, FORM))) == [b"payload", b"payload"]
    finally:
        os.close(fd)


@pytest.mark.parametrize("room", [0, 1, 22, 29])
def test_a_disk_that_is_full_in_the_middle_of_a_record_keeps_nothing_of_it(
    monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    write, left = os.write, [room]

    def take(fd: int, data: bytes) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = write(fd, bytes(data[: left[0]]))
        left[0] -= taken
        return taken

    fd = os.memfd_create("log")
    try:
        append_whole(fd, encode(1, ONE, b"payload", 1))
        monkeypatch.setattr(os, "write", take)
        with pytest.raises(OSError, match="No space left"):
            append_whole(fd, encode(2, ONE, b"payload", 1))
        assert intact(list(scan(fd, 0, os.fstat(fd).st_size, 1, FORM))) == [b"payload"]
        assert os.fstat(fd).st_size == len(encode(1, ONE, b"payload", 1))
    finally:
        os.close(fd)


def test_reading_in_pieces_gives_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """As read(2) may: one call returns at most 0x7ffff000 bytes."""
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, at: pread(fd, min(size, 3), at))
    fd = os.memfd_create("log")
    try:
        os.write(fd, b"0123456789")
        assert read_at(fd, 8, 1) == b"12345678"
        assert read_at(fd, 80, 7) == b"789"
    finally:
        os.close(fd)
