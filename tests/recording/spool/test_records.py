"""The format: what was written is found again, and nothing else is."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onrecord.audit.v1 import audit_pb2

from recording.logger import Row
from recording.spool import records
from recording.spool.records import INTENT, MAGIC, ROW, Damage, Record, encode_record, scan
from tests.recording.samples import tool_call

payloads = st.lists(st.binary(max_size=300), min_size=1, max_size=8)


def scan_bytes(data: bytes, number: int = 1) -> list[Record | Damage]:
    fd = os.memfd_create("segment")
    try:
        os.write(fd, data)
        return list(scan(fd, 0, len(data), number))
    finally:
        os.close(fd)


def intact(found: list[Record | Damage]) -> list[bytes]:
    return [record.payload for record in found if isinstance(record, Record)]


@given(payloads)
def test_records_are_found_as_they_were_written(written: list[bytes]) -> None:
    data = b"".join(encode_record(number, ROW, payload) for number, payload in enumerate(written, 1))
    found = scan_bytes(data)
    assert [(r.number, r.payload) for r in found if isinstance(r, Record)] == list(enumerate(written, 1))
    assert len(found) == len(written)


@given(payloads, st.data())
def test_a_tail_torn_anywhere_costs_its_own_record_only(written: list[bytes], data: st.DataObject) -> None:
    pieces = [encode_record(number, ROW, payload) for number, payload in enumerate(written, 1)]
    torn = data.draw(st.integers(0, len(pieces[-1]) - 1))
    found = scan_bytes(b"".join(pieces[:-1]) + pieces[-1][:torn])
    assert intact(found) == written[:-1]
    assert len(found) == len(written) - 1 + (torn > 0)


@given(payloads, st.data())
def test_a_flipped_bit_anywhere_costs_its_own_record_only(written: list[bytes], data: st.DataObject) -> None:
    pieces = [encode_record(number, ROW, payload) for number, payload in enumerate(written, 1)]
    hit = data.draw(st.integers(0, len(pieces) - 1))
    bit = data.draw(st.integers(0, len(pieces[hit]) * 8 - 1))
    damaged = bytearray(pieces[hit])
    damaged[bit // 8] ^= 1 << bit % 8
    found = scan_bytes(b"".join([*pieces[:hit], bytes(damaged), *pieces[hit + 1 :]]))
    assert intact(found) == written[:hit] + written[hit + 1 :]


@given(st.binary(max_size=2000), payloads)
def test_garbage_before_records_hides_none(garbage: bytes, written: list[bytes]) -> None:
    data = b"".join(encode_record(number, ROW, payload) for number, payload in enumerate(written, 1))
    assert intact(scan_bytes(garbage + data))[-len(written) :] == written


@pytest.mark.parametrize("size", [records._CHUNK_BYTES - 30, records._CHUNK_BYTES - 2, records._CHUNK_BYTES + 1])
def test_a_record_behind_damage_that_crosses_a_chunk_of_reading_is_found(size: int) -> None:
    record = encode_record(5, ROW, b"after")
    assert intact(scan_bytes(b"x" * size + record)) == [b"after"]
    assert intact(scan_bytes((MAGIC * size)[:size] + record)) == [b"after"]


def test_old_records_that_a_file_system_gave_back_are_no_rows() -> None:
    """Numbers only rise: a block of a deleted segment that turns up in a new one must not be sent again."""
    data = encode_record(7, ROW, b"new") + encode_record(3, ROW, b"old") + encode_record(8, ROW, b"newer")
    found = scan_bytes(data, 7)
    assert intact(found) == [b"new", b"newer"]
    assert [damage.reason for damage in found if isinstance(damage, Damage)] == ["the number is too low"]


def damage_table() -> Iterator[tuple[str, bytes]]:
    record = encode_record(1, ROW, b"payload")
    yield "the file ends inside a record", record[:-1]
    yield "the file ends inside a record", record[:5]
    yield "the file ends inside a record", bytes(64)
    yield "the file ends inside a record", record[:10] + bytes(64)
    yield "no record begins here", bytes(64) + b"!"
    yield "the length is impossible", record[:8] + b"\xff\xff\xff\xff" + record[12:]
    yield "the checksum does not fit", record[:-1] + b"!"
    yield "the kind is unknown", encode_record(1, 9, b"payload")


@pytest.mark.parametrize(("reason", "data"), [*damage_table()])
def test_damage_says_what_it_is(reason: str, data: bytes) -> None:
    assert scan_bytes(data) == [Damage(0, len(data), reason)]


@given(st.integers(0, 2**63 - 1))
def test_a_varint_is_what_protobuf_writes(value: int) -> None:
    covered = audit_pb2.SequenceRange(first=value)
    assert covered.SerializeToString() == (b"\x10" + records.encode_varint(value) if value else b"")


def test_payloads_behind_each_other_are_a_request() -> None:
    """Sending encodes nothing again: what lies on disk is what goes over the wire."""
    first, last = tool_call(1), tool_call(2, args_summary="y" * 20_000)
    cost = audit_pb2.CostRow(id="cost", model="m", input_tokens=5)
    session = audit_pb2.SessionRow(id="session", labels={"team": "x" * 200})
    rows: list[Row] = [first, cost, session, last]
    data = b"".join(map(records.encode_row, rows))
    expected = audit_pb2.RecordRequest(tool_calls=[first, last], model_requests=[cost], sessions=[session])
    assert audit_pb2.RecordRequest.FromString(data) == expected
    assert [records.decode_row(records.encode_row(row)) for row in rows] == rows
    assert [records.is_tool_call(records.encode_row(row)) for row in rows] == [True, False, False, True]
    call, request, state = audit_pb2.ROW_KIND_TOOL_CALL, audit_pb2.ROW_KIND_MODEL_REQUEST, audit_pb2.ROW_KIND_SESSION
    assert [records.kind_of_row(records.encode_row(row)) for row in rows] == [call, request, state, call]


def test_kinds_are_told_apart(tmp_path: Path) -> None:
    found = scan_bytes(encode_record(1, INTENT, b"a") + encode_record(2, ROW, b"b"))
    assert [record.kind for record in found if isinstance(record, Record)] == [INTENT, ROW]
