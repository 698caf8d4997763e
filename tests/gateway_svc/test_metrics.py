"""The gateway's own counters, scraped."""

from dataclasses import fields
from pathlib import Path

from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb
from prometheus_client import generate_latest

from gateway_svc.watching.metrics import TurnMetrics, outcome_label, stop_label
from recording.delivery.connection import Target
from recording.record import Record, open_record
from service_kit.observing.metrics import new_registry
from service_kit.producing.metrics import RecordCollector
from tests.recording.fake_audit import FakeAudit, serving
from tests.recording.samples import tool_call
from tests.support.scrapes import Scrape


def scraped(record: Record) -> Scrape:
    registry = new_registry()
    registry.register(RecordCollector(record))
    return Scrape(generate_latest(registry).decode())


async def test_what_a_full_spool_drops_is_counted(tmp_path: Path):
    record = open_record(tmp_path, Target("127.0.0.1:1"), max_bytes=2**20)
    taken = sum(record.spool.append(tool_call(number, error="e" * 1000)) for number in range(1500))
    seen = scraped(record)
    assert 0 < taken < 1500
    assert seen.value("onrecord_dropped_rows_total") == 1500 - taken
    assert seen.value("onrecord_accepted_rows_total") == taken
    await record.aclose()


async def test_dead_letters_and_rows_that_were_there_are_counted(tmp_path: Path):
    """A row that the ledger refuses is a dead letter, on disk and in the counter; a duplicate is no new row."""
    service = FakeAudit()

    async def behave(request: audit_pb2.RecordRequest, context: object) -> audit_pb2.RecordResponse:
        rejection = audit_pb2.Rejection(
            kind=audit_pb2.ROW_KIND_TOOL_CALL, id=request.tool_calls[0].id, code=audit_pb2.REJECTION_CODE_INVALID
        )
        return audit_pb2.RecordResponse(
            range=request.range, duplicates=len(request.tool_calls) - 1, rejections=[rejection]
        )

    service.behave = behave
    async with serving(service) as target:
        record = open_record(tmp_path, target)
        for number in range(3):
            record.spool.append(tool_call(number))
        record.start()
        assert await record.drain(60)
        seen = scraped(record)
        await record.aclose()
    assert seen.value("onrecord_rejected_rows_total") == 1
    assert seen.value("onrecord_duplicate_rows_total") == 2
    assert seen.value("onrecord_acked_rows_total") == 3
    assert seen.value("onrecord_dead_letter_bytes") > 100


async def test_every_counter_of_the_record_is_scraped(tmp_path: Path):
    """A counter that somebody adds must not be forgotten: each field has a value of its own, which is then found."""
    record = open_record(tmp_path, Target("127.0.0.1:1"))
    names = [field.name for field in fields(record.counters)]
    for value, name in enumerate(names, start=1001):
        setattr(record.counters, name, value)
    seen = scraped(record)
    values = {seen.value(name) for name in seen.names() if name.startswith("onrecord_")}
    assert set(range(1001, 1001 + len(names))) <= values
    await record.aclose()


def test_every_outcome_and_stop_reason_has_a_label():
    assert {outcome_label(number) for number in common_pb2.Outcome.values()} >= {"succeeded", "dry_run", "interrupted"}
    assert {stop_label(number) for number in pb.StopReason.values()} >= {"completed", "failed", "max_steps"}


def test_tools_of_a_server_have_one_label_and_invented_names_none():
    """Neither a model nor a foreign server makes labels without end."""
    registry = new_registry()
    metrics = TurnMetrics(registry, {"read"}, {"files"})
    for name in ("read", "files.a", "files.b", "others.a", "reads", "files"):
        metrics.count_tool_call(audit_pb2.AuditRow(tool_name=name, outcome=common_pb2.OUTCOME_SUCCEEDED))
    seen = Scrape(generate_latest(registry).decode())
    assert seen.labels("onrecord_tool_calls_total", "tool") == {"read", "files.*", "other"}
    assert seen.value("onrecord_tool_calls_total", tool="files.*") == 3


def test_a_call_that_did_not_run_adds_no_time():
    registry = new_registry()
    metrics = TurnMetrics(registry, {"read"})
    for outcome, took_ms in [("SUCCEEDED", 0), ("DENIED", 60_000), ("INTERRUPTED", 0), ("CANCELLED", 0), ("FAILED", 5)]:
        number = common_pb2.Outcome.Value(f"OUTCOME_{outcome}")
        metrics.count_tool_call(audit_pb2.AuditRow(tool_name="read", outcome=number, duration_ms=took_ms))
    seen = Scrape(generate_latest(registry).decode())
    assert seen.value("onrecord_tool_calls_total", tool="read") == 5
    assert seen.value("onrecord_tool_call_seconds_count", tool="read") == 2
    assert seen.value("onrecord_tool_call_seconds_sum", tool="read") == 0.005


def test_cost_is_counted_in_dollars():
    registry = new_registry()
    metrics = TurnMetrics(registry, {"read"})
    metrics.count_step(audit_pb2.CostRow(engine="openai", cost_micros=2_500_000, duration_ms=1500))
    seen = Scrape(generate_latest(registry).decode())
    assert seen.value("onrecord_cost_usd_total", engine="openai") == 2.5
    assert seen.value("onrecord_model_request_seconds_sum", engine="openai") == 1.5
