"""Rows that the audit service will never store: told apart from a service that takes nothing, kept, and passed by."""

import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from onrecord.audit.v1 import audit_pb2

from recording import upkeep
from recording.delivery.dead_letters import DeadLetters
from recording.logger import Row
from recording.spool import Spool
from tests.recording.fake_audit import Context, FakeAudit, refusing, rows_of, serving
from tests.recording.samples import opened, tool_call
from tests.recording.sending import failing_once, names, record, sending

CONFLICT = audit_pb2.REJECTION_CODE_CONFLICT


class PickyAudit(FakeAudit):
    """Refuses whole calls for the rows whose ids are in `poison`, as a service does that they make fail."""

    def __init__(self, *poison: int) -> None:
        super().__init__()
        self.poison = {f"call-{number}" for number in poison}
        self.behave = self.pick

    async def pick(self, request: audit_pb2.RecordRequest, context: Context) -> audit_pb2.RecordResponse | None:
        if self.poison & {row.id for row in rows_of(request)}:
            return await refusing(grpc.StatusCode.INVALID_ARGUMENT, "a field is not as it should be")(request, context)
        return await self.store(request, context)


def dead_letters(state_dir: Path, spool: Spool) -> list[dict[str, Any]]:
    path = state_dir / "spool" / "dead-letters" / f"{spool.id}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


async def test_rejected_rows_are_kept_with_the_reason_and_their_neighbours_are_stored(tmp_path: Path) -> None:
    service = FakeAudit()

    async def reject(request: audit_pb2.RecordRequest, context: Context) -> audit_pb2.RecordResponse:
        calls = [(audit_pb2.ROW_KIND_TOOL_CALL, *found) for found in enumerate(request.tool_calls)]
        rows: list[tuple[audit_pb2.RowKind.ValueType, int, Row]] = [*calls]
        rows += ((audit_pb2.ROW_KIND_MODEL_REQUEST, *found) for found in enumerate(request.model_requests))
        rejected = [named for named in rows if named[2].id in ("call-3", "cost")]
        for kind, index, _ in rejected:
            del (request.tool_calls if kind == audit_pb2.ROW_KIND_TOOL_CALL else request.model_requests)[index]
        response = await service.store(request, context)
        for kind, index, row in rejected:
            response.rejections.add(
                kind=kind, index=index, id=row.id, code=CONFLICT, message="it is there, and differs"
            )
        return response

    service.behave = reject
    cost = audit_pb2.CostRow(id="cost", model="m", cost_micros=5)
    with opened(tmp_path) as spool:
        record(spool, 0, 10)
        spool.append(cost)
        async with serving(service) as target, sending(spool, target) as sender:
            assert await sender.drain(60)
        letters = dead_letters(tmp_path, spool)
        assert spool.counters.rejected == 2
        assert (spool.counters.acked, spool.counters.stored) == (11, 9)
    assert list(service.ledger) == [*names(0, 3), *names(4, 6)]
    assert [(letter["number"], letter["code"], letter["kind"]) for letter in letters] == [
        (4, "CONFLICT", "AuditRow"),
        (11, "CONFLICT", "CostRow"),
    ]
    assert letters[0]["message"] == "it is there, and differs"
    assert json_format.ParseDict(letters[0]["row"], audit_pb2.AuditRow()) == tool_call(3)
    assert json_format.ParseDict(letters[1]["row"], audit_pb2.CostRow()) == cost


async def test_of_rows_with_one_id_only_the_rejected_one_is_kept(tmp_path: Path) -> None:
    service = FakeAudit()

    async def reject(request: audit_pb2.RecordRequest, context: Context) -> audit_pb2.RecordResponse:
        response = await service.store(request, context)
        response.rejections.add(kind=audit_pb2.ROW_KIND_MODEL_REQUEST, index=1, id="same", code=CONFLICT)
        return response

    service.behave = reject
    with opened(tmp_path) as spool:
        spool.append(audit_pb2.CostRow(id="same", model="first"))
        spool.append(tool_call(1, id="same"))
        spool.append(audit_pb2.CostRow(id="same", model="second"))
        async with serving(service) as target, sending(spool, target) as sender:
            assert await sender.drain(60)
        letters = dead_letters(tmp_path, spool)
    assert [(letter["number"], letter["row"]) for letter in letters] == [(3, {"id": "same", "model": "second"})]


@pytest.mark.parametrize(
    "named", [{"index": 0}, {"kind": audit_pb2.ROW_KIND_SESSION}, {"kind": audit_pb2.ROW_KIND_TOOL_CALL, "index": 10}]
)
async def test_a_rejection_of_what_was_not_sent_trims_nothing(tmp_path: Path, named: dict[str, Any]) -> None:
    service = FakeAudit()

    async def confuse(request: audit_pb2.RecordRequest, _context: Context) -> audit_pb2.RecordResponse:
        rejection = audit_pb2.Rejection(id="call-0", code=CONFLICT, **named)
        return audit_pb2.RecordResponse(range=request.range, rejections=[rejection])

    service.behave = failing_once(service, confuse)
    with opened(tmp_path) as spool:
        record(spool, 0, 10)
        async with serving(service) as target, sending(spool, target) as sender:
            assert await sender.drain(60)
        assert dead_letters(tmp_path, spool) == []
    assert list(service.ledger) == names(0, 10)


async def test_dead_letters_are_on_disk_before_the_batch_leaves_the_spool(tmp_path: Path) -> None:
    """When their file cannot be written, the rows stay, and are asked for again until it can."""
    service = FakeAudit()

    async def reject(request: audit_pb2.RecordRequest, _context: Context) -> audit_pb2.RecordResponse:
        rejection = audit_pb2.Rejection(
            kind=audit_pb2.ROW_KIND_TOOL_CALL, code=audit_pb2.REJECTION_CODE_INVALID, message="no"
        )
        return audit_pb2.RecordResponse(range=request.range, rejections=[rejection])

    service.behave = reject
    folder = tmp_path / "spool" / "dead-letters"
    with opened(tmp_path) as spool:
        folder.write_text("something else is here")
        record(spool, 0, 1)
        async with serving(service) as target, sending(spool, target) as sender:
            await service.until(lambda: len(service.requests) >= 3)
            assert spool.counters.acked == 0
            folder.unlink()
            assert await sender.drain(60)
        assert len(dead_letters(tmp_path, spool)) == spool.counters.rejected == 1


@pytest.mark.parametrize("poison", [{0}, {699}, {3, 4, 5}, {0, 250, 499, 500, 699}])
async def test_rows_that_the_service_chokes_on_do_not_hold_up_the_others(tmp_path: Path, poison: set[int]) -> None:
    service = PickyAudit(*poison)
    with opened(tmp_path) as spool:
        record(spool, 0, 700)
        async with serving(service) as target, sending(spool, target) as sender:
            assert await sender.drain(60)
            record(spool, 700, 1)
            assert await sender.drain(60)
        letters = dead_letters(tmp_path, spool)
        covered = {number for first, last in service.covered[spool.id] for number in range(first, last + 1)}
    assert list(service.ledger) == [f"call-{number}" for number in range(701) if number not in poison]
    assert [letter["number"] for letter in letters] == sorted(number + 1 for number in poison)
    assert {letter["code"] for letter in letters} == {"INVALID_ARGUMENT"}
    assert covered == set(range(1, 702)) - {number + 1 for number in poison}


async def test_a_row_that_is_refused_alone_waits_for_one_that_is_not(tmp_path: Path) -> None:
    """Alone, it cannot be told from a service that takes nothing."""
    service = PickyAudit(0)
    with opened(tmp_path) as spool:
        record(spool, 0, 1)
        async with serving(service) as target, sending(spool, target) as sender:
            await service.until(lambda: len(service.requests) >= 4)
            assert dead_letters(tmp_path, spool) == []
            record(spool, 1, 1)
            assert await sender.drain(60)
        assert [letter["number"] for letter in dead_letters(tmp_path, spool)] == [1]
    assert list(service.ledger) == ["call-1"]


@pytest.mark.long
async def test_batches_that_are_too_large_for_the_service_are_sent_in_pieces(tmp_path: Path) -> None:
    service = FakeAudit()
    limit = [("grpc.max_receive_message_length", 100_000)]
    with opened(tmp_path) as spool:
        record(spool, 0, 8, args_summary="x" * 20_000)
        record(spool, 8, 1, args_summary="x" * 120_000)
        record(spool, 9, 5)
        async with serving(service, options=limit) as target, sending(spool, target) as sender:
            assert await sender.drain(60)
        letters = dead_letters(tmp_path, spool)
    assert list(service.ledger) == [*names(0, 8), *names(9, 5)]
    assert [(letter["number"], letter["code"]) for letter in letters] == [(9, "RESOURCE_EXHAUSTED")]


@pytest.mark.long
async def test_a_service_that_is_only_busy_gets_no_row_declared_dead(tmp_path: Path) -> None:
    """RESOURCE_EXHAUSTED is how it says so, with or without telling for how long."""
    service = FakeAudit()
    service.behave = failing_once(service, refusing(grpc.StatusCode.RESOURCE_EXHAUSTED, "queue full"), times=5)
    with opened(tmp_path) as spool:
        record(spool, 0, 20)
        async with serving(service) as target, sending(spool, target) as sender:
            assert await sender.drain(60)
        assert dead_letters(tmp_path, spool) == []
    assert list(service.ledger) == names(0, 20)


async def test_a_service_that_fails_while_rows_are_isolated_gets_them_later(tmp_path: Path) -> None:
    service = PickyAudit(5)
    pick = service.behave
    calls = 0

    async def fail_in_the_middle(request: audit_pb2.RecordRequest, context: Context) -> audit_pb2.RecordResponse | None:
        nonlocal calls
        calls += 1
        if calls == 4:
            return await refusing(grpc.StatusCode.UNAVAILABLE)(request, context)
        return await pick(request, context)

    service.behave = fail_in_the_middle
    with opened(tmp_path) as spool:
        record(spool, 0, 20)
        async with serving(service) as target, sending(spool, target) as sender:
            assert await sender.drain(60)
        assert [letter["number"] for letter in dead_letters(tmp_path, spool)] == [6]
    assert set(service.ledger) == {*names(0, 5), *names(6, 14)}


@pytest.mark.long
@pytest.mark.usefixtures("no_upkeep_failed")
@pytest.mark.parametrize("at_fault", [0, 9])
async def test_a_defect_while_a_refused_batch_is_made_up_for_does_not_end_the_sender(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_fault: int
) -> None:
    """Whatever is left in the spool is sent, though nothing new comes to wake the sender."""
    service = PickyAudit(at_fault)
    write, failures = DeadLetters.write, 0

    def failing(letters: DeadLetters, *what: Any) -> None:
        nonlocal failures
        failures += 1
        if failures <= 2:
            raise OverflowError("a defect")
        write(letters, *what)

    monkeypatch.setattr(DeadLetters, "write", failing)
    monkeypatch.setattr("recording.delivery.sender._FAILED_SECONDS", 0.01)
    with opened(tmp_path) as spool:
        record(spool, 0, 10)
        async with serving(service) as target, sending(spool, target) as sender:
            assert await sender.drain(60)
        assert [letter["row"]["id"] for letter in dead_letters(tmp_path, spool)] == [f"call-{at_fault}"]
    assert sorted(service.ledger) == [f"call-{number}" for number in range(10) if number != at_fault]
    assert upkeep.failures == {"sending": 2}
    assert upkeep.why_failing() == ""
