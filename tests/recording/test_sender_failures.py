"""The sender against a service, a network or a disk that fails: no row is lost, and what went wrong is told."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from onrecord.audit.v1 import audit_pb2
from structlog.testing import capture_logs

from demo.processes import Service, start_service
from recording.delivery.connection import Target
from tests.recording.fake_audit import Context, FakeAudit, refusing, serving
from tests.recording.samples import opened
from tests.recording.sending import failing_once, names, record, sending
from tests.support.listening import listening
from tests.support.ports import own_port


async def test_a_lost_ack_costs_a_resend_and_no_double(tmp_path: Path) -> None:
    service = FakeAudit()

    async def commit_and_die(request: audit_pb2.RecordRequest, context: Context) -> None:
        await service.store(request, context)

    service.behave = failing_once(service, commit_and_die, times=3)
    with opened(tmp_path) as spool:
        record(spool, 0, 700)
        async with serving(service) as target, sending(spool, target) as sender:
            assert await sender.drain(60)
        assert list(service.ledger) == names(0, 700)
        assert spool.counters.resent >= 500
        assert spool.counters.duplicates >= 500
        assert spool.counters.stored + spool.counters.duplicates == spool.counters.acked == 700
        assert spool.counters.reconnects == 3


@pytest.mark.long
@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.OK,
    ],
)
async def test_no_status_costs_a_row(tmp_path: Path, code: grpc.StatusCode) -> None:
    """Whatever the service says to everything, all rows are there when it has come to its senses."""
    service = FakeAudit()

    async def end(_request: audit_pb2.RecordRequest, _context: Context) -> None:
        return None

    refuse = end if code is grpc.StatusCode.OK else refusing(code)
    with opened(tmp_path) as spool:
        record(spool, 0, 10)
        async with serving(service) as target, sending(spool, target) as sender:
            service.behave = refuse
            await service.until(lambda: len(service.requests) >= 3)
            service.behave = service.store
            assert await sender.drain(60)
        assert list(service.ledger) == names(0, 10)
        assert (spool.counters.rejected, spool.counters.dropped) == (0, 0)
    assert not (tmp_path / "spool" / "dead-letters").exists()


async def test_a_service_that_is_not_there_yet_gets_everything_later(tmp_path: Path) -> None:
    service = FakeAudit()
    with opened(tmp_path) as spool, own_port() as port:
        record(spool, 0, 10)
        async with sending(spool, Target(f"127.0.0.1:{port}")) as sender:
            while spool.counters.reconnects < 3:
                await asyncio.sleep(0.01)
            async with serving(service, port):
                assert await sender.drain(60)
            record(spool, 10, 10)
            async with serving(service, port):
                await service.until_stored(20)


async def test_it_leaves_the_service_alone_for_as_long_as_asked(tmp_path: Path) -> None:
    service = FakeAudit()
    came: list[float] = []

    async def busy(request: audit_pb2.RecordRequest, context: Context) -> audit_pb2.RecordResponse | None:
        came.append(time.monotonic())
        if len(came) == 1:
            return await refusing(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy", 0.5)(request, context)
        return await service.store(request, context)

    service.behave = busy
    with opened(tmp_path) as spool:
        record(spool, 0, 10)
        async with serving(service) as target, sending(spool, target):
            await service.until_stored(10)
    assert came[1] - came[0] >= 0.5


async def test_a_service_that_takes_and_never_acks_is_left(tmp_path: Path) -> None:
    service = FakeAudit()

    async def hang(_request: audit_pb2.RecordRequest, _context: Context) -> None:
        await asyncio.Event().wait()

    service.behave = failing_once(service, hang)
    with opened(tmp_path) as spool:
        record(spool, 0, 10)
        async with serving(service) as target, sending(spool, target, ack_seconds=0.2):
            await service.until_stored(10)
        assert spool.counters.reconnects >= 1, "each that is slower than so long is left too"


@pytest.mark.long
async def test_a_connection_into_a_black_hole_is_left(tmp_path: Path) -> None:
    """Something accepts and never answers, as a dead firewall does: the next connection must be another one."""
    connections = asyncio.Semaphore(0)
    service = FakeAudit()

    async def swallow(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        connections.release()
        await asyncio.Event().wait()

    with opened(tmp_path) as spool, own_port() as port:
        record(spool, 0, 10)
        async with sending(spool, Target(f"127.0.0.1:{port}"), ack_seconds=0.3):
            async with listening(swallow, port=port):
                for _ in range(2):
                    await connections.acquire()
            async with serving(service, port):
                await service.until_stored(10)


@pytest.mark.parametrize("other", [{"last": 0}, {"last": 501}, {"first": 2}, {"producer_id": "another"}])
async def test_an_ack_for_something_else_trims_nothing(tmp_path: Path, other: dict[str, Any]) -> None:
    service = FakeAudit()

    async def confuse(request: audit_pb2.RecordRequest, _context: Context) -> audit_pb2.RecordResponse:
        covered = audit_pb2.SequenceRange()
        covered.CopyFrom(request.range)
        for name, value in other.items():
            setattr(covered, name, value)
        return audit_pb2.RecordResponse(range=covered)

    service.behave = failing_once(service, confuse)
    with opened(tmp_path) as spool:
        record(spool, 0, 700)
        async with serving(service) as target, sending(spool, target) as sender:
            assert await sender.drain(60)
        assert list(service.ledger) == names(0, 700)


async def test_a_token_is_asked_for_at_each_connection(tmp_path: Path) -> None:
    service = FakeAudit()
    service.behave = failing_once(service, refusing(grpc.StatusCode.UNAUTHENTICATED))
    tokens = iter(["old", "new"])
    with opened(tmp_path) as spool:
        record(spool, 0, 1)
        async with serving(service) as target:
            target = replace(target, metadata=lambda: [("authorization", f"Bearer {next(tokens)}")])
            async with sending(spool, target) as sender:
                assert await sender.drain(60)
    assert [call["authorization"] for call in service.metadata] == ["Bearer old", "Bearer new"]


async def test_a_disk_that_cannot_be_read_does_not_end_the_sender(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = FakeAudit()
    with opened(tmp_path) as spool:
        record(spool, 0, 10)
        read, failures = spool.read, 0

        def failing(max_rows: int, max_bytes: int) -> object:
            nonlocal failures
            failures += 1
            if failures <= 2:
                raise OSError(5, "Input/output error")
            return read(max_rows, max_bytes)

        monkeypatch.setattr(spool, "read", failing)
        async with serving(service) as target, sending(spool, target) as sender:
            assert await sender.drain(60)
        assert len(service.ledger) == 10


async def levels_of_failures(failed: Callable[[], Awaitable[object]]) -> list[str]:
    with capture_logs() as logs:
        await failed()
    return [line["log_level"] for line in logs if line["event"] == "audit.sending_failed"]


async def test_a_connection_that_ends_by_its_age_is_no_warning(tmp_path: Path) -> None:
    service = FakeAudit()

    async def outlive_connections() -> None:
        options = [("grpc.max_connection_age_ms", 50), ("grpc.max_connection_age_grace_ms", 50)]
        with opened(tmp_path) as spool:
            async with serving(service, options=options) as target, sending(spool, target):
                for number in range(10_000):
                    record(spool, number, 1)
                    await service.until_stored(number + 1)
                    if spool.counters.reconnects >= 3:
                        return

    levels = await levels_of_failures(outlive_connections)
    assert levels[0] == "info"
    assert set(levels) <= {"info", "debug"}


@pytest.mark.long
async def test_a_restart_that_the_service_announced_is_no_warning_and_one_that_it_did_not_is(tmp_path: Path) -> None:
    def start(port: str) -> Service:
        return start_service("audit_svc", {"AUDIT_LISTEN": port, "AUDIT_DB": str(tmp_path / "audit.db")}, "serve")

    async def outlive_a_restart(end: Callable[[Service], object]) -> None:
        with own_port() as port, opened(tmp_path) as spool:
            first = await asyncio.to_thread(start, f"127.0.0.1:{port}")
            async with sending(spool, Target(first.address)) as sender:
                record(spool, 0, 1)
                assert await sender.drain(60)
                await asyncio.to_thread(end, first)
                first.__exit__(None, None, None)
                while sender.state != "failing":
                    record(spool, 1, 1)
                    await asyncio.sleep(0.01)
                with await asyncio.to_thread(start, first.address):
                    assert await sender.drain(60)

    assert set(await levels_of_failures(lambda: outlive_a_restart(lambda it: it.terminate()))) <= {"info", "debug"}
    assert "warning" in await levels_of_failures(lambda: outlive_a_restart(lambda it: it.kill()))
