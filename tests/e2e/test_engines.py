"""One conversation across all engines: the same events and the same rows whoever runs the turn, and a table of them."""

import json
import os
import re
import shlex
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.script import Call, Page, Script, Step
from tests.e2e.conftest import Pair, error_of, kinds, run_turn, text_of
from tests.e2e.test_mcp import mcp_file
from tests.support import claude_cli
from tests.support.claude_cli import MODEL, init, message, result, spent, tool_result, tool_use

SIZE, TEXT = {"type": "string", "bytes": 2}, "hi"
ROWS: dict[str, tuple[str, int | None, int | None, bool]] = {
    "read": ("SUCCEEDED", None, None, False),
    "bash": ("SUCCEEDED", 3, None, False),
    "webfetch": ("SUCCEEDED", None, 404, False),
    "missing": ("FAILED", None, None, True),
    "unknown": ("INVALID_CALL", None, None, True),
    "mcp": ("SUCCEEDED", None, None, False),
}
"""What each call comes to on every engine: outcome, exit code, HTTP status, and whether there is an error."""
NAMES: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "own": {
        "read": ("read", {"path": "a.txt"}),
        "bash": ("bash", {"command": "exit 3"}),
        "webfetch": ("webfetch", {"url": "{url}/pages/none"}),
        "missing": ("read", {"path": "none.txt"}),
        "unknown": ("nope", {"text": SIZE}),
        "mcp": ("t.echo", {"text": SIZE}),
    },
    "claude": {
        "read": ("Read", {"file_path": "a.txt"}),
        "bash": ("Bash", {"command": "exit 3"}),
        "webfetch": ("WebFetch", {"url": "{url}/pages/none"}),
        "missing": ("Read", {"file_path": "none.txt"}),
        "unknown": ("nope", {"text": SIZE}),
        "mcp": ("mcp__t__echo", {"text": SIZE}),
    },
}
"""What a row says of each call: the tool's name and its arguments, by whose tools they are."""
TURNS = [
    ("ollama", "chat"),
    ("openai", "chat"),
    ("anthropic", "chat"),
    ("claude", "chat"),
    ("openai", "responses"),
    ("anthropic", "responses"),
    ("ollama", "responses"),
]


def arguments_of(summary: dict[str, Any], url: str) -> dict[str, Any]:
    """The arguments that are summarised so."""
    return {name: TEXT if value == SIZE else value.format(url=url) for name, value in summary.items()}


def script(pair: Pair, mcp_name: str) -> Script:
    names = NAMES["own"] | {"mcp": (mcp_name, NAMES["own"]["mcp"][1])}
    calls = tuple(Call(name=name, arguments=arguments_of(summary, pair.model.url)) for name, summary in names.values())
    page = Page(status=404, body="none")
    steps = (Step(text="I look.", thinking="Hm.", tool_calls=calls), Step(text="Done."))
    return Script(steps=steps, pages={"/pages/none": page})


def claude(folder: Path, url: str) -> dict[str, str]:
    """The settings of a gateway whose Claude makes the same calls."""
    calls = [tool_use(kind, name, arguments_of(summary, url)) for kind, (name, summary) in NAMES["claude"].items()]
    results = [
        tool_result("read", "1\thello"),
        tool_result("bash", "Exit code 3\n", error=True),
        tool_result("webfetch", "page", detail={"code": 404}),
        tool_result("missing", "File does not exist.", error=True),
        tool_result("unknown", "<tool_use_error>Error: No such tool available: nope</tool_use_error>", error=True),
        tool_result("mcp", [{"type": "text", "text": TEXT}]),
    ]
    end = [*message("msg_2", "Done."), result({MODEL: spent(2, 0.001)})]
    lines = [init(tools=["mcp__t__echo"]), *message("msg_1", "I look.", calls), *results, *end]
    plays = folder / "plays"
    plays.mkdir()
    (plays / "play-0.json").write_text(json.dumps({"lines": lines}))
    command = shlex.join([sys.executable, str(Path(claude_cli.__file__)), str(plays)])
    return {"GATEWAY_CLAUDE_COMMAND": command, "GATEWAY_AUDIT_CLAUDE": "on", "GATEWAY_CLAUDE_MODEL": MODEL}


def shown(row: audit_pb2.AuditRow) -> tuple[str, int | None, int | None, bool]:
    return (
        common_pb2.Outcome.Name(row.outcome).removeprefix("OUTCOME_"),
        row.exit_code if row.HasField("exit_code") else None,
        row.http_status if row.HasField("http_status") else None,
        row.HasField("error"),
    )


@pytest.mark.long
async def test_one_conversation_across_all_engines_has_the_same_events_and_the_same_rows(make_pair, tmp_path):
    """The gateway is started anew in between, with the other of OpenAI's APIs; the model servers refuse a history that
    is not valid for theirs."""
    pair: Pair = await make_pair(Script())
    (pair.workspace / "a.txt").write_text("hello")
    pair.start_audit()
    env = {**claude(tmp_path, pair.model.url), **mcp_file(tmp_path)}
    running, seen, service = "", 0, None
    session = dict[str, str]()
    table: dict[tuple[str, str], dict[str, tuple[str, int | None, int | None, bool]]] = {}
    events_of: dict[tuple[str, str], Counter[str]] = {}
    for turn in TURNS:
        engine, api = turn
        if api != running:
            if service:
                service.terminate()
            service = pair.start_gateway(**env, GATEWAY_OPENAI_API=api)
            gateway, running = await pair.gateway(service), api
        pair.model.script = script(pair, "t.echo" if engine == "ollama" else "t__echo")
        events = await run_turn(gateway, engine=engine, **session, input=f"Turn on {engine}")
        assert text_of(events) == "I look.Done."
        session = {"session_id": events[0].turn_accepted.session_id}

        seen += len(ROWS)
        rows = (await pair.rows(seen, **session))[-len(ROWS) :]
        expected = NAMES["claude" if engine == "claude" else "own"]
        table[turn] = {}
        for kind, (name, summary) in expected.items():
            arguments: dict[str, Any] = {
                key: value if value == SIZE else value.format(url=pair.model.url) for key, value in summary.items()
            }
            if kind == "unknown":
                name, arguments = "unknown", {"$tool": {"type": "string", "bytes": len(name)}, "$more": 1}
            (row,) = [row for row in rows if (row.tool_name, json.loads(row.args_summary)) == (name, arguments)]
            assert (row.engine, row.times_observed) == (engine, engine == "claude")
            assert row.turn_id == events[0].turn_accepted.turn_id
            assert row.model == (MODEL if engine == "claude" else "scripted")
            table[turn][kind] = shown(row)
        finished = {event.tool_call_finished.tool_call_id for event in events if event.HasField("tool_call_finished")}
        assert finished == {row.id for row in rows}
        events_of[turn] = Counter(kind for kind in kinds(events) if kind != "text_delta")

    assert table == dict.fromkeys(TURNS, ROWS)
    assert events_of == dict.fromkeys(TURNS, events_of[TURNS[0]])
    assert events_of[TURNS[0]] == {
        "turn_accepted": 1,
        "turn_started": 1,
        "step_finished": 2,
        "tool_call_started": len(ROWS),
        "tool_call_finished": len(ROWS),
        "turn_finished": 1,
    }
    told = [m["content"] for m in pair.model.requests[-1].json["messages"] if m["role"] == "user"]
    assert told == [f"Turn on {engine}" for engine, _ in TURNS], "the last engine is told all of it"


async def failed_turn(
    gateway: Any, engine: str, match: str, act: Callable[[pb.TurnEvent], None] = lambda event: None
) -> list[pb.TurnEvent]:
    """The events of a turn that ends in an error."""
    events: list[pb.TurnEvent] = []

    async def listen() -> None:
        async for event in gateway.RunTurn(pb.RunTurnRequest(input="go", engine=engine)):
            events.append(event)
            act(event)

    await listen()
    assert re.search(match, error_of(events).message)
    return events


@pytest.mark.long
async def test_claude_s_program_killed_in_a_call_leaves_its_row_and_a_session_that_goes_on(make_pair, tmp_path):
    pair: Pair = await make_pair(Script(steps=(Step(text="Going on."),)))
    pair.start_audit()
    env = claude(tmp_path, pair.model.url)
    hang = [init(), *message("msg_1", "", [tool_use("toolu_1", "Bash", {"command": "sleep 60"})])]
    (tmp_path / "plays" / "play-0.json").write_text(json.dumps({"lines": [*hang, {"do": "wait"}]}))
    answer = [init(), *message("msg_2", "Here again."), result({MODEL: spent(1, 0.001)})]
    (tmp_path / "plays" / "play-1.json").write_text(json.dumps({"lines": answer}))
    gateway = await pair.gateway(pair.start_gateway(**env))

    def kill(event: pb.TurnEvent) -> None:
        if event.HasField("tool_call_started"):
            journal = (tmp_path / "plays" / "journal.jsonl").read_text().splitlines()
            os.kill(json.loads(journal[0])["pid"], signal.SIGKILL)

    events = await failed_turn(gateway, "claude", "ended by signal 9 in the middle of an answer", kill)
    (row,) = await pair.rows(1)
    assert (row.engine, row.tool_name, row.outcome) == ("claude", "Bash", common_pb2.OUTCOME_INTERRUPTED)
    session_id = events[0].turn_accepted.session_id
    assert text_of(await run_turn(gateway, session_id=session_id)) == "Here again."
    assert text_of(await run_turn(gateway, session_id=session_id, engine="ollama")) == "Going on."


@pytest.mark.long
@pytest.mark.parametrize(
    ("engine", "api", "chunks"),
    [("ollama", "chat", 3), ("openai", "chat", 3), ("openai", "responses", 7), ("anthropic", "chat", 6)],
)
async def test_a_model_server_cut_in_its_answer_leaves_its_cost_row_and_a_session_that_goes_on(
    make_pair, engine, api, chunks
):
    pair: Pair = await make_pair(Script(steps=(Step(text="one two three four five six", cut_after=chunks),)))
    pair.start_audit()
    gateway = await pair.gateway(pair.start_gateway(GATEWAY_OPENAI_API=api))
    events = await failed_turn(gateway, engine, "broke in the middle of its answer")
    pair.model.script = Script(steps=(Step(text="Going on.", tool_calls=(Call(name="glob"),)), Step(text="Done.")))
    events = await run_turn(gateway, session_id=events[0].turn_accepted.session_id)
    assert text_of(events) == "Going on.Done."
    await pair.rows(1)  # in the order of the record, so that the cost row is there too
    (first, *_) = pair.query("SELECT engine, error, usage_incomplete FROM cost_log ORDER BY created_at")
    assert (first[0], first[2]) == (engine, 1)
    assert first[1] == "engine_broke_off"
