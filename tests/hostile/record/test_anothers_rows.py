"""A producer that says another's ids, numbers and sessions, to the real pair: the other's rows stand as they were."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from onrecord.audit.v1 import audit_pb2, audit_pb2_grpc, questions_pb2, questions_pb2_grpc
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import approvals_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.processes import REPOSITORY, Service
from demo.script import Call, Script, Step
from service_kit.access.roles import Role
from tests.audit_svc.samples import audit_row, cost_row, record_request, session_row
from tests.hostile.record.conftest import Listed, Metadata

pytestmark = [pytest.mark.hostile, pytest.mark.timeout(120)]

ROLES: dict[str, list[Role]] = {
    "gateway": [Role.PRODUCER],
    "mallory": [Role.PRODUCER],
    "ada": [Role.CALLER],
    "auditor": [Role.READER],
}
GLOB = Call(name="glob", arguments={"pattern": "*"})


def audit_command(db: Path, *arguments: str) -> str:
    """What `audit-svc` prints; it must end well."""
    command = [sys.executable, "-m", "audit_svc", *arguments, "--db", str(db)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


class Ledger:
    """The ledger as the callers of a list see it."""

    def __init__(self, service: Service, listed: Listed) -> None:
        self._channel = grpc.aio.insecure_channel(service.address)
        self._listed = listed

    async def say(self, name: str, **rows: Any) -> audit_pb2.RecordResponse:
        """What a producer of that name is answered to a batch."""
        stub: Any = audit_pb2_grpc.AuditServiceStub(self._channel)
        answer: audit_pb2.RecordResponse = await stub.RecordBatch(
            record_request(**rows), metadata=self._listed.shown_by(name)
        )
        return answer

    async def calls(self, count: int, **conditions: Any) -> dict[tuple[str, str], audit_pb2.AuditRow]:
        """The tool calls by (id, recorded_by), once there are as many as count."""
        stub: Any = questions_pb2_grpc.QuestionServiceStub(self._channel)
        request = questions_pb2.ListToolCallsRequest(filter=questions_pb2.ToolCallFilter(**conditions))
        async with asyncio.timeout(30):
            while True:
                found = (await stub.ListToolCalls(request, metadata=self.reader)).tool_calls
                if len(found) >= count:
                    return {(one.tool_call.id, one.receipt.recorded_by): one.tool_call for one in found}
                await asyncio.sleep(0.05)

    async def session(self, session_id: str, **of: Any) -> Any:
        """A session's record and timeline."""
        stub: Any = questions_pb2_grpc.QuestionServiceStub(self._channel)
        request = questions_pb2.GetSessionRecordRequest(session=questions_pb2.RowKey(id=session_id, **of))
        return await stub.GetSessionRecord(request, metadata=self.reader)

    @property
    def reader(self) -> Metadata:
        """Whoever asks."""
        return self._listed.shown_by("auditor")


@pytest.fixture
def listed(tmp_path: Path) -> Listed:
    return Listed(tmp_path, ROLES)


@pytest.mark.parametrize("mode", ["best_effort", "strict"])
async def test_a_row_under_the_id_of_a_call_that_runs_does_not_unmake_it(make_pair, listed, mode):
    """ToolCallStarted tells the id of the coming row: whoever hears it may be first, and the true row stands."""
    pair = await make_pair(Script(steps=(Step(tool_calls=(GLOB,)), Step(text="done"))))
    audit = pair.start_audit(AUDIT_TOKENS_FILE=str(listed.path))
    service = pair.start_gateway(
        GATEWAY_TOKENS_FILE=str(listed.path),
        GATEWAY_AUDIT_TOKEN_FILE=listed.token_file("gateway"),
        GATEWAY_PRODUCER_NAME="gateway",
        GATEWAY_AUDIT_MODE=mode,
        GATEWAY_TOOLS="glob=ask",
    )
    ledger, gateway, approvals = Ledger(audit, listed), await pair.gateway(service), await pair.approvals(service)
    settings = pb.SessionSettings(labels={"user": "ada"})
    turn = gateway.RunTurn(pb.RunTurnRequest(input="go", new_session=settings), metadata=listed.shown_by("ada"))
    async for event in turn:
        if event.HasField("turn_accepted"):
            session_id = event.turn_accepted.session_id
        if event.HasField("tool_call_started"):
            call_id = event.tool_call_started.tool_call_id
            forged = audit_row(id=call_id, session_id="nobody", tool_name="write", created_at_ms=1_150_000_000_000)
            theirs = session_row(id=session_id, revision=2**40, turns=99, labels={"user": "mallory"})
            said = await ledger.say("mallory", tool_calls=[forged], sessions=[theirs])
            assert said.stored == 2
            answer = approvals_pb2.AnswerToolCallRequest(
                tool_call_id=call_id,
                verdict=common_pb2.VERDICT_ALLOWED,
                args_digest=event.tool_call_started.args_digest,
            )
            await approvals.AnswerToolCall(answer, metadata=listed.shown_by("ada"))
    calls = await ledger.calls(2)
    true = calls[call_id, "gateway"]
    assert (true.tool_name, true.session_id, true.outcome) == ("glob", session_id, common_pb2.OUTCOME_SUCCEEDED)
    assert calls[call_id, "mallory"] == forged
    assert await ledger.calls(1, recorded_by="gateway") == {(call_id, "gateway"): true}
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await ledger.session(session_id)
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "'gateway', 'mallory'" in str(refused.value.details())
    async with asyncio.timeout(30):
        while (found := (await ledger.session(session_id, recorded_by="gateway")).session).session.turns < 1:
            await asyncio.sleep(0.05)
    assert dict(found.session.labels) == {"user": "ada"}
    assert await asyncio.to_thread(service.terminate) == 0
    assert not [path for path in pair.state_dir.rglob("dead-letters/*.jsonl") if path.stat().st_size]
    told = await asyncio.to_thread(audit_command, pair.db, "check")
    assert f"the tool call '{call_id}' was recorded by 'gateway', 'mallory'" in " ".join(told.split())
    assert f"the session '{session_id}' was recorded by 'gateway', 'mallory'" in " ".join(told.split())
    assert call_id in await asyncio.to_thread(audit_command, pair.db, "producers")


async def test_who_is_first_after_a_restart_owns_nothing_of_anothers_session(make_pair, listed):
    pair = await make_pair(Script(steps=(Step(text="done"),)))
    audit = pair.start_audit(AUDIT_TOKENS_FILE=str(listed.path))
    address = audit.address
    true = session_row(id="s", turns=1, labels={"user": "ada"})
    assert (await Ledger(audit, listed).say("gateway", sessions=[true])).stored == 1
    audit.kill()
    again = pair.start_audit(AUDIT_TOKENS_FILE=str(listed.path), AUDIT_LISTEN=address)
    ledger = Ledger(again, listed)
    assert (await ledger.say("mallory", sessions=[session_row(id="s", revision=9, turns=9)])).stored == 1
    later = session_row(id="s", revision=2, turns=2, labels={"user": "ada"})
    said = await ledger.say("gateway", sessions=[later], tool_calls=[audit_row(session_id="s")])
    assert (said.stored, len(said.rejections)) == (2, 0)
    assert (await ledger.session("s", recorded_by="gateway")).session.session == later


async def test_anothers_numbers_cannot_be_said(make_pair, listed):
    """They would hide what never came of the other, or make gaps."""
    pair = await make_pair(Script())
    ledger = Ledger(pair.start_audit(AUDIT_TOKENS_FILE=str(listed.path)), listed)
    await ledger.say("gateway", tool_calls=[audit_row()], producer_id="gateway/1", first=1, last=2)
    await ledger.say("gateway", model_requests=[cost_row()], producer_id="gateway/1", first=5, last=6)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await ledger.say("mallory", tool_calls=[audit_row()], producer_id="gateway/1", first=1, last=2**40)
    assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED
    told = " ".join((await asyncio.to_thread(audit_command, pair.db, "check")).split())
    assert "gateway/1 of gateway: records 3 to 4 never came (2)" in told
    assert told.count("never came") == 1


async def test_an_ack_says_that_these_bytes_are_there_or_newer_ones(make_pair, listed):
    """Of each kind of row: the same bytes again are acked; others under the same key are a conflict."""
    pair = await make_pair(Script())
    ledger = Ledger(pair.start_audit(AUDIT_TOKENS_FILE=str(listed.path)), listed)
    call, request, session = audit_row(id="x"), cost_row(id="x"), session_row(id="x", revision=3, turns=3)
    sent: dict[str, Any] = {"tool_calls": [call], "model_requests": [request], "sessions": [session]}
    assert (await ledger.say("gateway", **sent)).stored == 3
    assert (await ledger.say("gateway", **sent)).duplicates == 3
    others: dict[str, Any] = {
        "tool_calls": [audit_row(id="x", tool_name="other")],
        "model_requests": [cost_row(id="x", input_tokens=1)],
        "sessions": [session_row(id="x", revision=3, turns=4)],
    }
    said = await ledger.say("gateway", **others)
    assert (said.stored, said.duplicates) == (0, 0)
    assert [one.code for one in said.rejections] == [audit_pb2.REJECTION_CODE_CONFLICT] * 3
    earlier = await ledger.say("gateway", sessions=[session_row(id="x", revision=2, turns=2)])
    assert earlier.duplicates == 1
    assert (await ledger.session("x", recorded_by="gateway")).session.session == session
