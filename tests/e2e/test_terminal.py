"""The commands that people type."""

import asyncio
import json
import subprocess
import sys

import pytest
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.processes import environment, run_command
from demo.script import Call, Script, Step


async def command(address: str, *args: str, program: str = "gateway_svc"):
    return await asyncio.to_thread(run_command, program, {"GATEWAY_LISTEN": address, "COLUMNS": "200"}, *args)


@pytest.mark.long
async def test_people_can_run_an_agent_and_look_at_what_there_is(make_pair):
    call = Call(name="bash", arguments={"command": "exit 3"})
    pair = await make_pair(Script(steps=(Step(text="Look: ", tool_calls=(call,)), Step(text="done"))))
    pair.start_audit()
    address = pair.start_gateway().address

    ran = await command(address, "run", "go", "--label", "user=ada")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "Look: \ndone\n", "the answer alone is on stdout"
    assert "bash: exit 3" in ran.stderr
    assert "2 model requests" in ran.stderr

    ran = await command(address, "run", "go", "--json", "--engine", "openai")
    events = [json.loads(line) for line in ran.stdout.splitlines()]
    assert events[1]["turn_started"]["engine"] == "openai"
    assert events[-1]["turn_finished"]["stop_reason"] == "completed"

    session_id = events[0]["turn_accepted"]["session_id"]
    ran = await command(address, "run", "again", "--json", "--session", session_id)
    assert json.loads(ran.stdout.splitlines()[0])["turn_accepted"]["session_id"] == session_id

    ran = await command(
        address,
        "run",
        "go",
        "--engine",
        "ollama",
        "--fallback",
        "openai:m",
        "--shadow",
        "openai:m:1",
        "--label",
        "place=[/x]",
        "--model",
        "[/x]",
    )
    assert ran.returncode == 0, ran.stderr
    ran = await command(address, "sessions", "--json", "--limit", "1")
    session = json.loads(ran.stdout)
    assert session["settings"]["fallback"] == {"engine": "openai", "model": "m"}
    assert session["settings"]["shadows"] == [{"engine": "openai", "model": "m:1"}]
    change = (
        "--label",
        "user=bob",
        "--label",
        "place=[/x]",
        "--max-cost",
        "2.5",
        "--without",
        "fallback",
        "--without",
        "shadow",
    )
    ran = await command(address, "change", session["id"], *change)
    assert ran.returncode == 0, ran.stderr
    kept = {name: session["settings"][name] for name in ("engine", "model")}
    assert json.loads(ran.stdout)["settings"] == kept | {
        "labels": {"user": "bob", "place": "[/x]"},
        "max_cost_micros": 2_500_000,
    }
    ran = await command(address, "run", "go", "--max-cost", "-1")
    assert ran.returncode == 2

    ran = await command(address, "sessions")
    assert "place=[/x]" in ran.stdout, ran.stderr

    ran = await command(address, "engines")
    assert "ollama" in ran.stdout
    assert "openai" in ran.stdout
    ran = await command(address, "sessions", "--json")
    assert {"user": "ada"} in [json.loads(line)["settings"].get("labels") for line in ran.stdout.splitlines()]
    async with asyncio.timeout(30):
        while (await command(address, "health")).returncode != 0:
            pass


@pytest.mark.long
async def test_what_a_gateway_refuses_of_a_field_is_said_of_the_option(make_pair):
    pair = await make_pair(Script(steps=(Step(text="done"),)))
    pair.start_audit()
    address = pair.start_gateway().address
    ran = await command(address, "run", "go", "--json")
    session_id = json.loads(ran.stdout.splitlines()[0])["turn_accepted"]["session_id"]
    for words, said in (
        (("run", "go", "--fallback", ":m"), "--fallback is empty: name the engine"),
        (("run", "go", "--label", f"{'k' * 65}=v"), "--label: a key has 1 to 64 characters"),
        (("run", "go", "--model", "m" * 257), "--model is longer than 256 characters"),
        (("run", ""), "PROMPT: is empty: say what the agent should do"),
        (("run", "go", "--shadow", ""), "--shadow: is empty"),
        (("resume", "", "--reason", "x"), "ID: is empty: give an id, or @last"),
        (("run", "go", "--session", "/" * 36), "SESSION is not the id of a session"),
        (("change", session_id, "--label", "=v"), "--label: a key has 1 to 64 characters"),
        (("change", session_id, *("--shadow", "openai") * 5), "--shadow: a session has at most 4 shadows"),
        (("stop", "--tool", "t" * 300, "--reason", "x"), "--tool has more than"),
        (("stop", "--tool", "t", "--reason", " "), "--reason is empty: say why"),
        (("stop", "--label", "=v", "--reason", "x"), "--label's key is empty: name what is stopped"),
    ):
        ran = await command(address, *words)
        assert ran.returncode == (1 if "is not the id of" in said else 2)
        assert said in ran.stderr.splitlines()[-1]
    ran = await command(address, "change", session_id, "--without", "max-cost", "--without", "label")
    assert ran.returncode == 0, ran.stderr


@pytest.mark.long
async def test_a_turn_that_waits_for_its_session_says_so(make_pair):
    call = Call(name="bash", arguments={"command": "until [ -e go ]; do sleep 0.02; done"})
    pair = await make_pair(Script(steps=(Step(tool_calls=(call,)), Step(text="done"))))
    pair.start_audit()
    address = pair.start_gateway().address
    first = asyncio.create_task(command(address, "run", "go"))
    while '"running"' not in (await command(address, "sessions", "--json")).stdout:
        assert not first.done()
    words = [sys.executable, "-m", "gateway_svc", "run", "again", "--continue", "--target", address]
    with subprocess.Popen(words, stdout=-1, stderr=-1, text=True, env=environment({})) as second:  # noqa: ASYNC220
        assert second.stdout
        assert second.stderr
        said = await asyncio.to_thread(second.stderr.readline)
        (pair.workspace / "go").touch()
        assert said.startswith("waiting: another turn of session ")
        assert await asyncio.to_thread(second.stdout.read) == "done\n"
    assert (await first).returncode == 0


@pytest.mark.long
@pytest.mark.parametrize("is_killed", [True, False], ids=["killed", "cancelled elsewhere"])
@pytest.mark.parametrize(("program", "named"), [("gateway_svc", "audit-svc show"), ("onrecord_cli", "onrecord show")])
async def test_a_turn_that_nobody_here_has_ended_says_so_and_where_it_is_on_record(
    make_pair, is_killed, program, named
):
    call = Call(name="bash", arguments={"command": "touch begun; sleep 600"})
    pair = await make_pair(Script(steps=(Step(tool_calls=(call,)),)))
    service = pair.start_gateway()
    turn = asyncio.create_task(command(service.address, "run", "go", "--target", service.address, program=program))
    while not (pair.workspace / "begun").exists():
        assert not turn.done()
        await asyncio.sleep(0.02)
    gateway = await pair.gateway(service)
    (session,) = (await gateway.ListSessions(pb.ListSessionsRequest())).sessions
    if is_killed:
        service.kill()
        why = f"the gateway at {service.address} went away during the turn; once it is back,"
    else:
        await gateway.CancelTurn(pb.CancelTurnRequest(session_id=session.id))
        why = "the turn was not cancelled here: its gateway was stopped, or another command cancelled it;"
    ran = await turn
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1] == f"{why} what ran is on record: `{named} {session.id}`"


@pytest.mark.long
async def test_a_failed_call_is_one_sentence(make_pair):
    pair = await make_pair(Script())
    pair.start_audit()
    address = pair.start_gateway().address
    ran = await command(address, "run", "go", "--engine", "nine")
    assert ran.returncode == 1
    assert ran.stderr.startswith("engine 'nine' is not configured")
    ran = await command("127.0.0.1:1", "engines")
    assert ran.returncode == 1
    assert "nobody listens on 127.0.0.1:1: is a gateway running there?" in ran.stderr
    ran = await command(pair.audit_address, "engines")
    assert "is not the address of a gateway: an audit service answers there; --target or GATEWAY_LISTEN" in ran.stderr
    assert (await command("127.0.0.1:1", "health")).returncode == 1
    assert (await command(address, "run", "go", "--label", "nonsense")).returncode == 2
