"""What `audit-svc compare` shows of two scripted engines is what a person needs to choose between them."""

import asyncio
import json
import re

import pytest
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.model_server import ModelServer
from demo.processes import run_command
from demo.script import Call, Script, Step, Tokens
from tests.e2e.conftest import run_turn

TOKENS = Tokens(input=1_000, output=100)
READ = Call(name="read", arguments={"path": "notes.txt"})
TOUCH = Call(name="bash", arguments={"command": "touch made-by-the-shadow"})
PRIMARY = Script(steps=(Step(tool_calls=(READ,), tokens=TOKENS), Step(text="Done.", tokens=TOKENS)))
OTHER = Script(
    steps=(
        Step(tool_calls=(READ, TOUCH, Call(name="glob", arguments={"pattern": "[/x]"})), tokens=TOKENS),
        Step(text="Also done.", tokens=TOKENS),
    )
)
COMPARED = pb.SessionSettings(engine="ollama", shadows=[pb.EngineChoice(engine="openai", model="gpt-4o-mini")])
SHOWN = (
    r"ollama · scripted +openai · gpt-4o-mini",
    r"worked +shadow",
    r"turns +2 +2",
    r"tool calls +2 +6",
    r"- alike +2",
    r"- only here +4",
    r"cost +\$0\.000000 +\$0\.000840",
    r"cost a turn +\$0\.000000 +\$0\.000420",
    r"model time a turn +\d+",
    r'1 +read +\{"path":"notes\.txt"\} +✓ +✓',
    r'2 +bash +\{"command":"touch made-by-the-shadow"\} +✓',
    r'1 +glob +\{"pattern":"\[/x\]"\}',
    r"openai · gpt-4o-mini beside ollama · scripted: 2 of 2 calls alike, 4 of its own; .* times the model time",
)


@pytest.mark.long
async def test_a_person_sees_what_moving_an_agent_to_the_other_engine_would_mean(make_pair):
    pair = await make_pair(PRIMARY)
    (pair.workspace / "notes.txt").write_text("high tide at noon\n", "utf-8")
    pair.start_audit()
    async with ModelServer(OTHER) as other:
        gateway = await pair.gateway(pair.start_gateway(GATEWAY_OPENAI_URL=other.openai_url))
        session_id = (await run_turn(gateway, new_session=COMPARED))[0].turn_accepted.session_id
        await run_turn(gateway, session_id=session_id)
        await pair.rows(8)
        await pair.costs(8)
        env = {"AUDIT_LISTEN": pair.audit_address, "COLUMNS": "160"}
        shown = await asyncio.to_thread(run_command, "audit_svc", env, "compare", session_id)
        assert shown.returncode == 0, shown.stderr
        for line in SHOWN:
            assert re.search(line, shown.stdout), (line, shown.stdout)
        told = await asyncio.to_thread(run_command, "audit_svc", env, "compare", session_id, "--json")
        assert told.returncode == 0, told.stderr
        worked, shadow = json.loads(told.stdout)["engines"]
        assert (worked["shadow"], shadow["shadow"]) == (False, True)
        assert (shadow["known_cost_micros"], shadow["agreed_calls"], shadow["own_calls"]) == (840, 2, 4)

        listed = await asyncio.to_thread(run_command, "audit_svc", env, "calls", "--session", session_id)
        assert "[/x]" in listed.stdout, listed.stderr

        alone = (await run_turn(gateway, engine="ollama"))[0].turn_accepted.session_id
        await pair.rows(9)
        refused = await asyncio.to_thread(run_command, "audit_svc", env, "compare", alone)
        assert (refused.returncode, refused.stderr.strip()) == (1, f"no shadow ran in session {alone}")
