"""The log of a real turn, as a real process wrote it."""

import asyncio
import json
import secrets
from typing import Any

import grpc
import pytest
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.processes import Service
from demo.script import Call, Refusal, Script, Step
from tests.e2e.conftest import error_of

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = ("traceparent", f"00-{TRACE_ID}-00f067aa0ba902b7-01")


def lines_of(service: Service, event: str = "") -> list[dict[str, Any]]:
    """The log's lines, each of which is JSON, or those of one event."""
    lines = [json.loads(line) for line in service.stderr_text().splitlines()]
    return [line for line in lines if event in {"", line["event"]}]


@pytest.mark.long
async def test_each_line_of_a_turn_names_turn_session_trace_and_caller_and_no_content(make_pair):
    """Turns at once, one that works and one that fails: their lines can be told apart, those of the RPC included."""
    sentinel = f"Sentinel{secrets.token_hex(8)}"
    work = (
        Step(tool_calls=(Call(name="bash", arguments={"command": f"echo {sentinel}; exit 3"}),)),
        Step(tool_calls=(Call(name="no_such_tool", arguments={"x": sentinel}),)),
        Step(text=sentinel),
    )
    pair = await make_pair(Script(steps=work))
    pair.start_audit()
    service = pair.start_gateway(GATEWAY_LOG_LEVEL="debug")
    gateway = await pair.gateway(service)
    request = pb.RunTurnRequest(input=sentinel, engine="openai")
    told = [event async for event in gateway.RunTurn(request, metadata=(TRACEPARENT,))]
    pair.model.script = Script(steps=(Step(refuse=Refusal(status=400, message=sentinel)),))
    failing = gateway.RunTurn(request, metadata=(("traceparent", TRACEPARENT[1].replace("4bf9", "aaaa")),))
    error = error_of([event async for event in failing])
    assert error.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
    assert await asyncio.to_thread(service.terminate) == 0

    own = {"service.", "audit.", "spool.", "metrics.", "sandbox.", "turns."}
    of_turns = [line for line in lines_of(service) if not line["event"].startswith(tuple(own))]
    assert {line["event"] for line in of_turns} >= {"turn.started", "turn.finished", "turn.failed"}
    for line in of_turns:
        assert set(line) >= {"turn_id", "session_id", "trace_id", "caller"}, line
        assert line["caller"] == "anonymous"
    accepted = told[0].turn_accepted
    finished = [line for line in lines_of(service, "turn.finished") if line["trace_id"] == TRACE_ID]
    assert [(line["turn_id"], line["session_id"]) for line in finished] == [(accepted.turn_id, accepted.session_id)]
    [line] = lines_of(service, "turn.failed")
    assert (line["error"], line["code"]) == ("EngineRejected", "FAILED_PRECONDITION")
    assert line["trace_id"] == TRACE_ID.replace("4bf9", "aaaa")
    assert len({line["turn_id"] for line in of_turns}) == 2
    assert sentinel not in service.stderr_text()
