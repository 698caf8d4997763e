"""Rows of a newer version in this one's spool: each reaches a ledger that knows it, whole and under its version."""

from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from recording.args_key import open_args_key
from recording.delivery.dead_letters import DeadLetter, DeadLetters
from recording.delivery.held_back import HeldBack
from recording.delivery.sender import Sender
from recording.framing import encode_record
from recording.producing.spool_logger import SpoolLogger
from recording.record import Record
from recording.row_version import ROW_VERSION
from recording.spool import Folders, SpoolOptions
from recording.spool.records import INTENT, ROW, decode_row, encode_row
from recording.spool.segments import SEGMENT_HEADER
from tests.recording.fake_audit import Context, FakeAudit, serving
from tests.recording.samples import ids, intent, opened, tool_call

NEWER = ROW_VERSION + 1
FIELD = b"\xf2\x3f\x07build-7"  # field 1022, a text: no version up to now has it
LIST = bytes([15 << 3 | 2, 4]) + b"\x0a\x02id"  # a row of a list 15, which no version up to now has


def newer_row(number: int) -> bytes:
    """The payload of a tool call with a field that this version does not know."""
    return encode_row(audit_pb2.AuditRow.FromString(tool_call(number).SerializeToString() + FIELD))


def leave_newer_spool(state_dir: Path, *records: tuple[int, bytes]) -> str:
    """What a dead process of a newer version left; returns its producer id."""
    folder = state_dir / "spool/01900000-0000-7000-8000-000000000001"
    folder.mkdir(parents=True)
    data = b"".join(encode_record(number, kind, payload, NEWER) for number, (kind, payload) in enumerate(records, 1))
    (folder / f"{1:020d}.segment").write_bytes(SEGMENT_HEADER + data)
    return folder.name


async def refuse_newer(request: audit_pb2.RecordRequest, context: Context) -> None:
    """What a ledger of this version answers to a newer batch."""
    info = error_details_pb2.ErrorInfo(reason="ROW_VERSION_TOO_NEW", domain="onrecord.dev")
    info.metadata["row_version"] = str(ROW_VERSION)
    packed = any_pb2.Any()
    packed.Pack(info)
    code = grpc.StatusCode.FAILED_PRECONDITION
    status = status_pb2.Status(code=code.value[0], message="too new", details=[packed])
    await context.abort(code, "too new", (("grpc-status-details-bin", status.SerializeToString()),))


async def test_rows_of_a_newer_version_wait_for_the_ledger_and_hold_up_no_others(tmp_path: Path) -> None:
    """A gateway that was rolled back: the newer one's spool waits, its own rows do not, and health says what to do."""
    newer = leave_newer_spool(tmp_path, (ROW, newer_row(1)), (ROW, LIST))
    service = FakeAudit()

    async def of_this_version(request: audit_pb2.RecordRequest, context: Context) -> audit_pb2.RecordResponse:
        if request.row_version > ROW_VERSION:
            await refuse_newer(request, context)
        return await service.store(request, context)

    service.behave = of_this_version
    folders = Folders(tmp_path / "spool", SpoolOptions())
    spool = folders.open_own()
    async with serving(service) as target:
        record = Record(
            folders, Sender(spool, target), SpoolLogger(spool, "best_effort", "interval"), open_args_key(tmp_path)
        )
        record.start()
        try:
            await service.until(lambda: any(request.row_version == NEWER for request in service.requests))
            for number in range(10, 15):
                record.logger.record(tool_call(number))
                await service.until(partial(service.ledger.__contains__, f"call-{number}"))
            assert spool.id != newer
            assert "call-1" not in service.ledger
            states = [record.sender_state]
            assert f"the ledger knows {ROW_VERSION}: upgrade the ledger first" in record.detail()
            assert record.trouble() == ""

            service.behave = service.store
            assert await record.drain(30)
            assert record.detail() == ""
            assert [*states, record.sender_state] == ["failing", "idle"]
        finally:
            await record.aclose()
    assert service.ledger["call-1"].SerializeToString().endswith(FIELD)
    assert service.covered[newer] == [(1, 2)]
    versions = {request.range.producer_id: request.row_version for request in service.requests}
    assert versions == {newer: NEWER, spool.id: ROW_VERSION}
    (whole,) = [request for request in service.requests if request.range.producer_id == newer][-1:]
    assert whole.SerializeToString().endswith(LIST), (
        "a row of a kind that this version does not know goes with the rest"
    )


async def test_any_refusal_is_told_in_health(tmp_path: Path) -> None:
    service = FakeAudit()

    async def refuse(request: audit_pb2.RecordRequest, context: Context) -> audit_pb2.RecordResponse:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")
        raise AssertionError("abort raises")

    service.behave = refuse
    with opened(tmp_path) as spool:
        spool.append(tool_call(1))
        async with serving(service) as target:
            sender = Sender(spool, target)
            sender.start()
            await service.until(lambda: len(service.requests) > 1)
            assert "give the gateway a token" in sender.refusal()
            service.behave = service.store
            assert await sender.drain(30)
            assert sender.refusal() == ""
            await sender.aclose()


def test_a_batch_has_rows_of_one_version(tmp_path: Path) -> None:
    """Also where rows of both lie in one spool, as after a folder was taken away, and where an intent lies between."""
    leave_newer_spool(tmp_path, (ROW, newer_row(1)), (INTENT, encode_row(intent(9))), (ROW, newer_row(2)))
    (newer,) = Folders(tmp_path / "spool", SpoolOptions()).adopt(1)
    with opened(tmp_path) as spool:
        spool.append(tool_call(10))
        newer.move_to(spool)
        newer.close()
        spool.append(tool_call(11))
        batches = []
        while (batch := spool.read(500, 2**20)) is not None:
            if batch.payloads:
                batches.append((batch.row_version, ids(list(map(decode_row, batch.payloads)))))
                spool.ack(batch)
    moved = ["call-1", "call-2", "call-9"]
    assert batches == [(ROW_VERSION, ["call-10"]), (NEWER, moved), (ROW_VERSION, ["call-11"])]


def test_a_call_that_a_newer_version_left_open_is_interrupted_as_it_would_have_said(tmp_path: Path) -> None:
    opened_call = audit_pb2.AuditRow.FromString(intent(1).SerializeToString() + FIELD)
    leave_newer_spool(tmp_path, (INTENT, encode_row(opened_call)))
    (spool,) = Folders(tmp_path / "spool", SpoolOptions()).adopt(1)
    try:
        while not (batch := spool.read(500, 2**20)) or not batch.payloads:
            assert batch is not None
        assert batch.row_version == NEWER
        (row,) = map(decode_row, batch.payloads)
        assert isinstance(row, audit_pb2.AuditRow)
        assert row.outcome == common_pb2.OUTCOME_INTERRUPTED
        assert FIELD in row.SerializeToString()
    finally:
        spool.close()


def test_the_age_of_a_row_of_an_unknown_kind_is_known(tmp_path: Path) -> None:
    leave_newer_spool(tmp_path, (ROW, LIST))
    (spool,) = Folders(tmp_path / "spool", SpoolOptions()).adopt(1)
    assert 0 < spool.oldest_age_seconds() < 3600
    spool.close()


def test_a_dead_letter_of_a_newer_version_keeps_what_this_one_cannot_read(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path)
    letters.write(
        "p", [DeadLetter(number, row, "CONFLICT", "no", NEWER) for number, row in enumerate([newer_row(1), LIST])]
    )
    letters.write("p", [DeadLetter(2, encode_row(tool_call(2)), "CONFLICT", "no")])
    *newer, own = letters.read()
    assert own.row() == tool_call(2)
    for letter in newer:
        with pytest.raises(ValueError, match="a newer version wrote the row"):
            letter.row()
    newer[0].about["row_version"] = ROW_VERSION  # what that version will find
    assert encode_row(newer[0].row()) == newer_row(1)


def test_why_rows_wait_can_be_asked_while_another_thread_changes_what_waits() -> None:
    """The thread of a scrape and that of health ask, and the sender goes on."""
    held = HeldBack("ledger:1")

    class Leaving:
        ledger_knows = ROW_VERSION

        @property
        def row_version(self) -> int:
            held.release("two")
            return NEWER

    waits: dict[str, Any] = {name: Leaving() for name in ("one", "two", "three")}
    held._waits = waits
    assert f"row_version {NEWER} wait" in held.refusal()
    assert held
