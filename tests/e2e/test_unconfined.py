"""Commands that run without a jail are told of: in a turn's first event and in the list of engines."""

import json
import re
import sys
from pathlib import Path

import pytest
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.processes import run_command
from demo.script import Script, Step
from tests.e2e.conftest import run_turn
from tests.tools_mcp import played


@pytest.mark.long
@pytest.mark.parametrize("tools", ["read,bash", "read"])
async def test_a_turn_and_the_list_of_engines_say_whether_commands_are_unconfined(make_pair, tools):
    pair = await make_pair(Script(steps=(Step(text="Done."),)))
    pair.start_audit()
    gateway = await pair.gateway(pair.start_gateway(GATEWAY_BASH_SANDBOX="off_as_root", GATEWAY_TOOLS=tools))
    events = await run_turn(gateway, engine="ollama")
    unconfined = tools == "read,bash"
    assert events[1].turn_started.unconfined is unconfined
    engines = (await gateway.ListEngines(pb.ListEnginesRequest())).engines
    assert {(engine.unconfined, engine.jail) for engine in engines} == {(unconfined, "none" if unconfined else "")}


@pytest.mark.long
def test_the_command_tools_shows_what_is_offered_and_why_the_rest_is_not(tmp_path):
    file = tmp_path / "mcp.json"
    server = {"command": sys.executable, "args": [str(Path(played.__file__)), "noschema"]}
    file.write_text(json.dumps({"mcpServers": {"t": server, "gone": {"command": "no-such-program-here"}}}))
    env = {
        "GATEWAY_OLLAMA_URL": "http://127.0.0.1:9",
        "GATEWAY_OLLAMA_MODEL": "m",
        "GATEWAY_STATE_DIR": str(tmp_path / "state"),
        "GATEWAY_MCP_FILE": str(file),
        "GATEWAY_TOOLS": "read,write=ask,bash",
        "PATH": "/bin",
    }
    ran = run_command("gateway_svc", env, "tools")
    lines = [re.split(r"\s{2,}", line) for line in ran.stdout.splitlines()]
    assert ran.returncode == 0, ran.stderr
    assert ["read", "allow"] in lines
    assert ["write", "ask"] in lines
    assert ["t.go", "allow"] in lines
    assert ["t.bad", "no schema"] in lines
    assert ["gone.*", "the MCP server is not running"] in lines
