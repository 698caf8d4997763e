"""R12 for what goes wrong: the words of a model server, of Claude's program and of an MCP server are for the caller or
the model. The record has a code of ours and a status; and no name that a caller chose takes a session off the record.
"""

import asyncio
import json
import re
import secrets
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.script import Call, Refusal, Script, Step
from gateway_svc.errors import GatewayError, failure_of
from tests.e2e.conftest import Pair, error_of, run_turn, text_of
from tests.e2e.test_mcp import mcp_file
from tests.e2e.test_no_content import files_with
from tests.support import claude_cli
from tests.support.claude_cli import MODEL, api_error, init, message, result, spent, tool_use

CODE = r"[a-z][a-z_]{0,63}(, HTTP [0-9]{3})?"


def refused(status: int, body: object, content_type: str = "application/json") -> Step:
    text = body if isinstance(body, str) else json.dumps(body)
    return Step(refuse=Refusal(status=status, body=text, headers={"retry-after": "1000", "content-type": content_type}))


def error_shapes(said: str) -> list[Step]:
    """How servers tell that something went wrong, each with words that quote the prompt or the answer."""
    calls = (Call(name="read", arguments=f'{{"path": "{said}'), Call(name="bash", arguments={"command": "x", said: 1}))
    return [
        refused(400, {"error": said}),
        refused(400, {"error": {"message": said, "type": said, "code": said, "param": said}}),
        refused(500, {"error": f"error parsing tool call: raw='{said}', err=invalid character"}),
        refused(422, {"detail": [{"loc": [said], "msg": said, "input": said}]}),
        refused(400, {"object": "error", "message": f"1 validation error, input_value='{said}'", "code": 400}),
        refused(400, [said, {"error": said}]),
        refused(502, {"error": {"message": "Provider returned error", "metadata": {"raw": said}}}),
        refused(401, f"<html><title>{said}</title></html>", "text/html"),
        refused(403, said, "text/plain"),
        refused(404, {"error": {"message": f"model '{said}' not found", "code": "model_not_found"}}),
        refused(429, {"message": said}),
        refused(503, said, said),
        Step(text=said, error_after=1, error_status=400),
        Step(text=f"{said} " * 3, cut_after=2),
        Step(text=said, finish=said),
        Step(text=said, omit=frozenset({"finish", "done", "usage"})),
        Step(tool_calls=calls, finish="length"),
    ]


async def nothing_of_it(pair: Pair, said: str, transcripts: set[str], *logs: str) -> None:
    """The word is in transcripts alone, and each error that was recorded is a code."""
    assert set(files_with(pair.state_dir, said)) <= transcripts
    assert files_with(pair.db.parent, said) == []
    for log in logs:
        assert said not in log
    for (error,) in pair.query("SELECT DISTINCT error FROM cost_log WHERE error IS NOT NULL"):
        assert re.fullmatch(CODE, error), error


@pytest.mark.long
@pytest.mark.parametrize(("engine", "api"), [("openai", "chat"), ("ollama", "chat"), ("openai", "responses")])
async def test_what_a_model_server_says_of_its_failure_is_for_the_caller_alone(make_pair, engine, api):
    said = f"Sentinel{secrets.token_hex(8)}"
    pair: Pair = await make_pair(Script())
    audit = pair.start_audit(AUDIT_LOG_LEVEL="debug")
    service = pair.start_gateway(GATEWAY_LOG_LEVEL="debug", GATEWAY_OPENAI_API=api)
    gateway = await pair.gateway(service)
    told = failed = 0
    for step in error_shapes(said):
        pair.model.script = Script(steps=(step, Step(text="Done.")), check=False)
        finished = (await run_turn(gateway, engine=engine, input=f"Look for {said}"))[-1].turn_finished
        failed += finished.stop_reason == pb.STOP_REASON_FAILED
        told += said in finished.error.message
    assert failed >= 10
    assert told >= 5, "the caller is told the server's words"
    await pair.costs(len(error_shapes(said)))
    ((errors,),) = pair.query("SELECT count(*) FROM cost_log WHERE error IS NOT NULL")
    assert errors >= failed
    transcripts = {str(path.relative_to(pair.state_dir)) for path in pair.state_dir.rglob("*.conversation")}
    await nothing_of_it(pair, said, transcripts, service.stderr_text(), audit.stderr_text())


@pytest.mark.long
async def test_what_claude_s_program_says_of_a_failure_is_for_the_caller_alone(make_pair, tmp_path):
    said = f"Sentinel{secrets.token_hex(8)}"
    call = [*message("msg_1", "", [tool_use("toolu_1", "Bash", {"command": "true"})])]
    runs = [
        [init(), api_error("invalid_request", said), result({MODEL: spent(1, 0.001)}, error=True, result=said)],
        [init(), api_error(said, said), result({MODEL: spent(1, 0.001)}, error=True, result=said, errors=[said])],
        [init(), *call, api_error("rate_limit", said), result({}, error=True, result=said, api_error_status=429)],
        [init(), *call, {"do": "stderr", "text": said}, {"do": "exit", "code": 1}],
        [{"do": "raw", "text": said}, {"do": "exit", "code": 0}],
        [init(), *message("msg_1", said)[:4], {"do": "kill"}],
    ]
    plays = tmp_path / "plays"
    plays.mkdir()
    for number, lines in enumerate(runs):
        (plays / f"play-{number}.json").write_text(json.dumps({"lines": lines}))
    pair: Pair = await make_pair(Script())
    audit = pair.start_audit(AUDIT_LOG_LEVEL="debug")
    command = shlex.join([sys.executable, str(Path(claude_cli.__file__)), str(plays)])
    service = pair.start_gateway(GATEWAY_CLAUDE_COMMAND=command, GATEWAY_AUDIT_CLAUDE="on", GATEWAY_LOG_LEVEL="debug")
    gateway = await pair.gateway(service)
    for _ in runs:
        error_of(await run_turn(gateway, engine="claude", input=f"Look for {said}"))
    await pair.costs(len(runs))
    transcripts = {str(path.relative_to(pair.state_dir)) for path in pair.state_dir.rglob("*.conversation")}
    await nothing_of_it(pair, said, transcripts, service.stderr_text(), audit.stderr_text())


@pytest.mark.long
async def test_what_a_tool_or_an_mcp_server_says_of_its_failure_is_for_the_model_alone(make_pair, tmp_path):
    said = f"Sentinel{secrets.token_hex(8)}"
    calls = (
        Call(name="t.fail", arguments={"text": said}),
        Call(name="t.echo", arguments={said: said}),
        Call(name="t.none", arguments={"text": said}),
        Call(name="read", arguments={"path": said}),
        Call(name="read", arguments={"path": "a.txt", "limit": said}),
        Call(name="read", arguments={"path": "a.txt", said: said}),
        Call(name="edit", arguments={"path": "a.txt", "old_string": said, "new_string": "x"}),
        Call(name="bash", arguments={"command": f"echo {said} >&2; exit 9"}),
        Call(name="grep", arguments={"pattern": f"({said}", "path": "."}),
        Call(name="webfetch", arguments={"url": f"http://127.0.0.1:1/{said}"}),
        Call(name="webfetch", arguments={"url": f"ftp://{said}"}),
        Call(name=said, arguments={}),
    )
    pair: Pair = await make_pair(Script(steps=(Step(tool_calls=calls), Step(text="Done."))))
    (pair.workspace / "a.txt").write_text("a\n")
    audit = pair.start_audit()
    service = pair.start_gateway(GATEWAY_LOG_LEVEL="debug", **mcp_file(tmp_path))
    events = await run_turn(await pair.gateway(service), engine="ollama")
    assert text_of(events) == "Done."
    rows = await pair.rows(len(calls))
    assert sum(row.HasField("error") for row in rows) >= 9
    assert not [row.error for row in rows if said in row.error]
    for log in (service.stderr_text(), audit.stderr_text()):
        assert said not in log


def test_each_error_has_a_code_of_its_own():
    def classes(kind: type[GatewayError]) -> list[type[GatewayError]]:
        return [kind, *(found for one in kind.__subclasses__() for found in classes(one))]

    codes = [kind.code for kind in classes(GatewayError) if not kind.__name__.startswith("_")]
    assert len(set(codes)) == len(codes)
    assert {str(failure_of(error("secret plans"))) for error in (ValueError, KeyError, OSError)} == {"internal_error"}
    assert str(failure_of(asyncio.CancelledError("secret plans"))) == "cancelled"


@pytest.mark.long
async def test_no_name_that_a_caller_chose_takes_a_session_off_the_record_or_a_secret_onto_it(make_pair):
    key = "sk-ant-" + secrets.token_hex(24)
    pair: Pair = await make_pair(Script(steps=(Step(text="Done."),), check=False))
    pair.start_audit()
    gateway = await pair.gateway(pair.start_gateway(GATEWAY_LOG_LEVEL="debug"))
    chosen: list[dict[str, Any]] = [
        {"model": "m" * 256},
        {"model": key},
        {"model": "\u202e\u2028"},
        {"new_session": pb.SessionSettings(labels={"team": key})},
        {"new_session": pb.SessionSettings(labels={key[:60]: "x"})},
        {"new_session": pb.SessionSettings(labels={"a\u202e": "b\u202e"})},
    ]
    for request in chosen:
        # The server may refuse such a model: the session has its row all the same.
        await run_turn(gateway, engine="ollama", **request)
    await pair.until("SELECT count(*) FROM sessions WHERE revision >= 2", [(len(chosen),)])
    assert not list(pair.state_dir.rglob("dead-letters/*.jsonl"))
    assert files_with(pair.db.parent, key[:60]) == []
    models = {model for (model,) in pair.query("SELECT model FROM sessions")}
    assert "m" * 256 in models
    assert any("[redacted:" in model for model in models)
    shown = json.dumps(pair.query("SELECT key, value FROM session_labels"), ensure_ascii=False)
    assert "\u202e" not in shown
    assert "[redacted:" in shown
