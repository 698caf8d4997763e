"""An approval counts for the call that was shown, once, in time and under its rules: programs of others judge alike.

`agent-governance-toolkit-core` decides on the same cases as the gateway. `testimony-pydantic-ai`'s validator reads what
the ledger has of an approved and of a refused call. Both live in an environment of their own: they pin other versions.
"""

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import approvals_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.script import Call, Script, Step
from service_kit.access.roles import Role, make_token
from tests.e2e.conftest import Pair, make_pair
from tests.e2e.test_security import bearer

__all__ = ["make_pair"]  # a fixture

pytestmark = pytest.mark.judges

HERE = Path(__file__).parent
BIN = Path(os.environ.get("JUDGES_BIN", "/nowhere"))
RULES = '[[rules]]\nname = "ask"\ntools = ["glob"]\nverdict = "ask"\nreason = "Look first."\n'
ONE = {"tool": "glob", "arguments": {"pattern": "*"}}
OTHER = {"tool": "glob", "arguments": {"pattern": "*.key"}}
CASES: Mapping[str, Mapping[str, Any]] = {
    "as approved": {"approved": ONE, "run": ONE},
    "other arguments": {"approved": ONE, "run": OTHER},
    "used again": {"approved": ONE, "run": ONE, "times": 2},
    "too late": {"approved": ONE, "run": ONE, "late": True},
    "rules changed": {"approved": ONE, "run": ONE, "rules_changed": True},
}
Found = tuple[bool, str]
"""Whether the call ran, and the reason of the refusal."""
REASONS: Mapping[str, tuple[str, Found]] = {
    "as approved": ("ok", (True, "")),
    "other arguments": ("action_digest_mismatch", (False, "DIGEST_MISMATCH")),
    "used again": ("already_consumed", (False, "")),  # the second call asks anew, and was not answered
    "too late": ("expired", (False, "NOT_FOUND")),
    "rules changed": ("policy_version_mismatch", (False, "POLICY_CHANGED")),
}


def ask_judge(program: Path, text: str, *args: str) -> Any:
    """What a judge writes as JSON about what it reads."""
    assert BIN.is_dir(), "make test-judges makes the judges' environment"
    judged = subprocess.run([BIN / "python", program, *args], input=text, capture_output=True, text=True, timeout=120)
    assert judged.stdout, judged.stderr
    return json.loads(judged.stdout)


class Floor:
    """A pair whose gateway asks Bob about what Ada's agent wants to run."""

    def __init__(self, pair: Pair, rules: Path, caller: Any, approver: Any) -> None:
        self.pair, self.rules = pair, rules
        self.caller, self.approver = caller, approver
        self.digests: list[common_pb2.ArgsDigest] = []
        self._stubs: tuple[Any, Any] = (None, None)

    async def start(self, tokens: Path, answer_seconds: str) -> None:
        self.pair.start_audit()
        service = self.pair.start_gateway(
            GATEWAY_TOKENS_FILE=str(tokens),
            GATEWAY_RULES_FILE=str(self.rules),
            GATEWAY_APPROVAL_BY_OTHERS="true",
            GATEWAY_ANSWER_SECONDS=answer_seconds,
        )
        self._stubs = await self.pair.gateway(service), await self.pair.approvals(service)

    async def run(self) -> AsyncIterator[Any]:
        """Each call that asks, as its turn runs."""
        async for event in self._stubs[0].RunTurn(pb.RunTurnRequest(input="go"), metadata=self.caller):
            if event.tool_call_started.HasField("pending"):
                self.digests.append(event.tool_call_started.args_digest)
                yield event.tool_call_started

    async def answer(self, call: Any, **fields: Any) -> str:
        """The reason of the refusal, empty where the answer counted."""
        shown = {
            "tool_call_id": call.tool_call_id,
            "verdict": common_pb2.VERDICT_ALLOWED,
            "args_digest": call.args_digest,
        }
        request = approvals_pb2.AnswerToolCallRequest(**{**shown, **fields})
        try:
            await self._stubs[1].AnswerToolCall(request, metadata=self.approver)
        except grpc.aio.AioRpcError as refused:
            status, info = rpc_status.from_call(cast(Any, refused)), error_details_pb2.ErrorInfo()
            assert any(detail.Unpack(info) for detail in status.details)
            return str(info.reason)
        return ""

    async def deny(self, call: Any) -> None:
        assert not await self.answer(call, verdict=common_pb2.VERDICT_DENIED, reason="Not this one.")

    def change_rules(self) -> None:
        other = self.rules.with_suffix(".new")
        other.write_text(RULES.replace("first", "twice"))
        other.replace(self.rules)


@pytest.fixture
def open_floor(make_pair: Callable[[Script], Any], tmp_path: Path) -> Callable[..., Any]:
    @asynccontextmanager
    async def opened(*calls: Mapping[str, Any], answer_seconds: str = "60") -> AsyncIterator[Floor]:
        made = {name: make_token(name, [role]) for name, role in {"ada": Role.CALLER, "bob": Role.APPROVER}.items()}
        tokens, rules = tmp_path / "callers.toml", tmp_path / "rules.toml"
        tokens.write_text("\n".join(table for _, table in made.values()))
        rules.write_text(RULES)
        steps = [Step(tool_calls=(Call(name=call["tool"], arguments=call["arguments"]),)) for call in calls]
        pair = await make_pair(Script(steps=(*steps, Step(text="Done."))))
        floor = Floor(pair, rules, *(bearer(token) for token, _ in made.values()))
        await floor.start(tokens, answer_seconds)
        yield floor

    return opened


async def play(case: str, open_floor: Callable[..., Any]) -> Found:
    """What the gateway does in a case: whether the call that was not approved as such ran, and why not."""
    reason, last = "", ""
    calls = [ONE, CASES[case]["run"]] if case in {"other arguments", "used again"} else [ONE]
    async with open_floor(*calls, answer_seconds="1" if case == "too late" else "60") as floor:
        asked: list[Any] = []
        async for call in floor.run():
            asked.append(call)
            match case, len(asked):
                case "as approved", _:
                    reason = await floor.answer(call)
                case "other arguments", 1:
                    await floor.deny(call)
                case "other arguments", _:
                    reason = await floor.answer(call, args_digest=floor.digests[0])
                    await floor.deny(call)
                case "used again", 1:
                    assert not await floor.answer(call)
                case "used again", _:
                    assert call.args_digest == floor.digests[0]
                    reason = await floor.answer(asked[0])  # said again by the same person, it changes nothing
                    await floor.deny(call)
                case "rules changed", _:
                    floor.change_rules()
                    reason = await floor.answer(call)
            last = call.tool_call_id
        if case == "too late":
            reason = await floor.answer(asked[0])
        rows = {row.id: row for row in await floor.pair.rows(len(calls))}
    return rows[last].outcome == common_pb2.OUTCOME_SUCCEEDED, reason


@pytest.mark.parametrize("case", CASES)
async def test_the_gateway_and_the_oracle_of_the_governance_toolkit_decide_alike(case, open_floor):
    oracle, ours = REASONS[case]
    assert await asyncio.to_thread(ask_judge, HERE / "oracle.py", json.dumps({case: CASES[case]})) == {case: oracle}
    assert await play(case, open_floor) == ours


async def test_what_the_ledger_has_of_an_approved_and_a_refused_call_is_testimony_of_the_third_level(open_floor):
    async with open_floor(ONE, OTHER) as floor:
        async for call in floor.run():
            if len(floor.digests) == 1:
                assert not await floor.answer(call)
            else:
                await floor.deny(call)
        rows = await floor.pair.rows(2)
    assert [row.outcome for row in rows] == [common_pb2.OUTCOME_SUCCEEDED, common_pb2.OUTCOME_DENIED]
    record = "\n".join(json.dumps(entry) for entry in record_of(rows))
    judged = await asyncio.to_thread(ask_judge, validator(), record, "-", "--json")
    assert judged["level"] in {"TR-3", "TR-4"}, judged
    nobody = record.replace('"id": "bob"', '"id": ""')
    assert nobody != record
    assert (await asyncio.to_thread(ask_judge, validator(), nobody, "-", "--json"))["level"] not in {"TR-3", "TR-4"}


def validator() -> Path:
    (found,) = BIN.parent.glob("lib/python3*/site-packages/testimony_validate.py")
    return found


def record_of(rows: list[audit_pb2.AuditRow]) -> list[Mapping[str, Any]]:
    """Rows as a Testimony Record 0.2 (draft-clifford-testimony-record): nothing in it is not from a row."""
    entries: list[dict[str, Any]] = [{"type": "scope", "id": "scope", "acts": True}]
    for row in rows:
        decision, approval = row.decision, f"approval-{row.id}"
        allowed = decision.verdict == common_pb2.VERDICT_ALLOWED
        entries += [
            {
                "type": "decision",
                "id": row.id,
                "action_type": row.tool_name,
                "risk_class": "high" if decision.source == common_pb2.DECISION_SOURCE_PERSON else "low",
                "risk_source": "policy",
                "proposed_by": {"id": row.principal, "kind": "agent"},
                "verdict": "permitted" if allowed else "refused",
                "executed": row.outcome == common_pb2.OUTCOME_SUCCEEDED,
                "approval": approval if allowed else None,
                "reason": decision.reason,
                "at": decision.decided_at_ms,
            }
        ]
        if allowed:
            approver = {"id": decision.decided_by, "kind": "human"}
            identity = {"approver": approver, "identity_source": "api-key", "at": decision.decided_at_ms}
            entries.append({"type": "approval", "id": approval, "decision": row.id, **identity})
    at = [entry.pop("at", rows[0].created_at_ms) for entry in entries]
    at[0] = min(at)
    return [
        {"spec": "testimony-record/0.2", "at": datetime.fromtimestamp(ms / 1000, UTC).isoformat(), **entry}
        for entry, ms in zip(entries, at, strict=True)
    ]
