"""Metrics of both services, scraped from the real processes after real traffic."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import grpc
import pytest
from onrecord.audit.v1 import questions_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.script import Call, Script, Step, Tokens
from tests.audit_svc.samples import audit_row, request
from tests.e2e.conftest import error_of, run_turn
from tests.support.scrapes import Scrape, scrape

ON = "127.0.0.1:0"
INVENTED = "invented_by_the_model"
ROOT = Path(__file__).resolve().parents[2]

WORK = Script(
    steps=(
        Step(
            tool_calls=(
                Call(name="read", arguments={"path": "notes.txt"}),
                Call(name="read", arguments={"path": "missing.txt"}),
                Call(name=INVENTED, arguments={}),
            ),
            tokens=Tokens(input=100, output=20, cached=7, reasoning=5),
        ),
        Step(text="Done.", tokens=Tokens(input=200, output=30)),
    )
)


async def until(get: Any, holds: Any) -> Scrape:
    """Scrapes until it holds: counters of a sender rise by themselves."""
    async with asyncio.timeout(30):
        while True:
            seen: Scrape = await asyncio.to_thread(scrape, get)
            if holds(seen):
                return seen
            await asyncio.sleep(0.02)


@pytest.mark.long
async def test_each_counter_of_the_gateway_says_what_happened(make_pair):
    """Two turns while the ledger is down, which is then started: every figure is known beforehand."""
    pair = await make_pair(WORK)
    (pair.workspace / "notes.txt").write_text("tides\n")
    pair.start_audit().terminate()
    service = pair.start_gateway(GATEWAY_METRICS_LISTEN=ON)
    gateway = await pair.gateway(service)
    await run_turn(gateway, engine="openai")
    await run_turn(gateway, engine="ollama")
    with pytest.raises(grpc.aio.AioRpcError):
        await run_turn(gateway, session_id="none")

    def is_quiet(seen: Scrape) -> bool:
        return seen.value("onrecord_sender_state", state="failing") == 1 and seen.value("onrecord_rpcs_total") == 3

    down = await until(service, is_quiet)
    assert down.value("onrecord_turns_total", engine="openai", stop_reason="completed") == 1
    assert down.value("onrecord_turns_total") == 2
    assert down.value("onrecord_turn_seconds_count", engine="ollama") == 1
    assert down.value("onrecord_turns_running", engine="openai") == 0
    assert down.value("onrecord_model_requests_total", engine="openai", outcome="ok") == 2
    assert down.value("onrecord_model_request_seconds_count", engine="openai") == 2
    tokens = {kind: down.value("onrecord_tokens_total", engine="openai", kind=kind) for kind in ("input", "output")}
    assert tokens == {"input": 300, "output": 50}
    assert down.value("onrecord_tokens_total", engine="openai", kind="cached_input") == 7
    assert down.value("onrecord_tokens_total", engine="openai", kind="reasoning") == 5
    assert down.value("onrecord_unpriced_requests_total", engine="openai") == 2
    assert "onrecord_cost_usd_total" in down.names(), "Ollama's requests are priced, at 0"
    assert down.value("onrecord_tool_calls_total", tool="read", outcome="succeeded") == 2
    assert down.value("onrecord_tool_calls_total", tool="read", outcome="failed") == 2
    assert down.value("onrecord_tool_calls_total", tool="unknown", outcome="invalid_call") == 2
    assert down.value("onrecord_tool_call_seconds_count", tool="read") == 4
    assert INVENTED not in down.text, "a model cannot make labels"
    run = "/onrecord.gateway.v1.GatewayService/RunTurn"
    assert down.value("onrecord_rpcs_total", method=run, code="OK") == 2
    assert down.value("onrecord_rpcs_total", method=run, code="NOT_FOUND") == 1
    assert down.value("onrecord_rpc_seconds_count", method=run) == 3
    assert down.value("onrecord_rpcs_running", method=run) == 0
    rows = 2 * (3 + 2) + 2 * 3  # tool calls and model requests of each turn; sessions made, begun, ended
    assert down.value("onrecord_accepted_rows_total") == rows
    assert down.value("onrecord_spool_records") == rows + 2 * 3, "intents lie there too"
    assert down.value("onrecord_spool_bytes") > 1000
    assert down.value("onrecord_spool_oldest_row_seconds") > 0
    assert down.value("onrecord_sender_reconnects_total") >= 1
    assert down.value("process_resident_memory_bytes") > 1e6

    pair.start_audit()

    def is_done(seen: Scrape) -> bool:
        names = ("acked_rows_total", "stored_rows_total", "spool_records")
        counted = [seen.value(f"onrecord_{name}") for name in names]
        return counted == [rows, rows, 0] and seen.value("onrecord_sender_state", state="idle") == 1

    up = await until(service, is_done)
    assert up.value("onrecord_sender_state") == 1
    assert up.value("onrecord_spool_oldest_row_seconds") == 0


@pytest.mark.long
async def test_the_dashboard_and_the_manual_name_metrics_that_are_there(make_pair, tmp_path):
    """Each name on the dashboard is scraped, and the manual's table is all that is scraped and no more."""
    servers = tmp_path / "servers.json"
    servers.write_text('{"mcpServers": {"gone": {"command": "false"}}}')
    pair = await make_pair(WORK)
    audit = pair.start_audit(AUDIT_METRICS_LISTEN=ON, AUDIT_SEAL_SECONDS="0.1", AUDIT_SEAL_HOOK="true")
    service = pair.start_gateway(GATEWAY_METRICS_LISTEN=ON, GATEWAY_MCP_FILE=str(servers))
    gateway = await pair.gateway(service)
    for engine in ("openai", "ollama"):
        await run_turn(gateway, engine=engine)
    await pair.rows(6)
    scrapes = [await asyncio.to_thread(scrape, process) for process in (service, audit)]
    names = set[str]().union(*(seen.names() for seen in scrapes))

    board = json.loads((ROOT / "deploy" / "grafana" / "onrecord.json").read_text())
    expressions = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    shown = {name for text in expressions for name in re.findall(r"\b(?:onrecord|process)_\w+", text)}
    assert len(shown) > 30
    assert shown <= names

    table = (ROOT / "docs" / "operations.md").read_text().partition("## Metrics")[2].partition("\n## ")[0]
    told = set(re.findall(r"`(onrecord_\w+)`", table))
    families = {name for seen in scrapes for name in seen.families if name.startswith("onrecord_")}
    of_several_workers = {"onrecord_worker_up", "onrecord_worker_restarts"}
    assert told - of_several_workers == families


@pytest.mark.long
async def test_running_waiting_and_failed_turns_show(make_pair):
    """A turn under way is counted as running; one whose model server fails is counted as failed, and so is its step."""
    script = Script(steps=(Step(tool_calls=(Call(name="bash", arguments={"command": "sleep 30"}),)),), models=("one",))
    pair = await make_pair(script)
    service = pair.start_gateway(GATEWAY_METRICS_LISTEN=ON, GATEWAY_AUDIT_TARGET="127.0.0.1:1")
    gateway = await pair.gateway(service)
    error_of(await run_turn(gateway, engine="ollama", model="two"))
    turn = gateway.RunTurn(pb.RunTurnRequest(input="go", engine="openai", model="one"))
    seen = await until(service, lambda seen: seen.value("onrecord_turns_running", engine="openai") == 1)
    assert seen.value("onrecord_turns_total", engine="ollama", stop_reason="failed") == 1
    assert seen.value("onrecord_model_requests_total", engine="ollama", outcome="error") == 1
    session_id = (await turn.read()).turn_accepted.session_id
    behind = gateway.RunTurn(pb.RunTurnRequest(input="go", session_id=session_id))
    await until(service, lambda seen: seen.value("onrecord_turns_waiting") == 1)
    behind.cancel()
    await until(service, lambda seen: seen.value("onrecord_turns_waiting") == 0)
    turn.cancel()
    cancelled = {"stop_reason": "cancelled", "engine": "openai"}
    await until(service, lambda seen: seen.value("onrecord_turns_total", **cancelled) == 1)
    run = "/onrecord.gateway.v1.GatewayService/RunTurn"
    await until(service, lambda seen: seen.value("onrecord_rpcs_total", method=run, code="CANCELLED") == 2)


@pytest.mark.long
async def test_each_counter_of_the_ledger_says_what_happened(make_pair):
    """New rows, rows sent again, one that contradicts what is there, and queries, one of them without an answer."""
    pair = await make_pair(Script())
    service = pair.start_audit(AUDIT_METRICS_LISTEN=ON)
    audit, questions = await pair.audit(), await pair.questions()
    rows = [audit_row() for _ in range(3)]
    await audit.RecordBatch(request(*rows))
    await audit.RecordBatch(request(*rows))
    rows[0].tool_name = "another"
    await audit.RecordBatch(request(rows[0]))
    # A commit is counted behind its answers. Queries leave rows too, which are committed when some have come.
    before = await until(service, lambda seen: seen.value("onrecord_ledger_commit_seconds_count") == 3)
    assert before.value("onrecord_ledger_commit_rows_sum") == 7
    await questions.ListToolCalls(questions_pb2.ListToolCallsRequest())
    with pytest.raises(grpc.aio.AioRpcError):
        await questions.GetSessionRecord(questions_pb2.GetSessionRecordRequest(session=questions_pb2.RowKey(id="none")))
    async with grpc.aio.insecure_channel(service.address) as channel:
        call: Any = channel.unary_unary(f"/{INVENTED}/Method")
        with pytest.raises(grpc.aio.AioRpcError):
            await call(b"")

    def is_done(seen: Scrape) -> bool:
        return seen.value("onrecord_ledger_unindexed_rows") == 0 and seen.value("onrecord_rpcs_total") == 6

    seen = await until(service, is_done)
    assert seen.value("onrecord_ledger_stored_rows_total") == 3
    assert seen.value("onrecord_ledger_duplicate_rows_total") == 3
    assert seen.value("onrecord_ledger_rejected_rows_total") == 1
    assert seen.value("onrecord_ledger_failed_commits_total") == 0
    assert seen.value("onrecord_ledger_query_seconds_count") >= 2
    assert seen.value("onrecord_ledger_queued_rows") == 0
    assert seen.value("onrecord_ledger_database_bytes") >= 4096
    assert seen.value("onrecord_ledger_wal_bytes") > 4096
    record, question = "/onrecord.audit.v1.AuditService/RecordBatch", "/onrecord.audit.v1.QuestionService"
    assert seen.value("onrecord_rpcs_total", method=record, code="OK") == 3
    assert seen.value("onrecord_rpcs_total", method=f"{question}/GetSessionRecord", code="NOT_FOUND") == 1
    assert seen.value("onrecord_rpcs_total", method="other", code="UNIMPLEMENTED") == 1
    assert INVENTED not in seen.text
