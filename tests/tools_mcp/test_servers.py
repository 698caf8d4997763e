"""MCP servers, real ones: what they offer, what their calls come to, and what happens when they misbehave or die."""

import asyncio
import json
import os
import shutil
import sys

import pytest
from onrecord.common.v1 import common_pb2

from gateway_svc.tools.mcp.settings import ServerSettings
from tests.engines_claude.stage import has_run_name, is_running
from tests.support.processes import parent_of
from tests.tools_mcp.conftest import PROGRAM, of_tests

SENTINEL = "zebra-7f3a9c-content"


@pytest.mark.long
async def test_tools_are_offered_under_their_server_s_name_with_their_schema(open_desk):
    desk = await open_desk(files=of_tests())
    (echo,) = [tool for tool in desk.toolbox.definitions() if tool.name == "files.echo"]
    assert echo.description == "Says it again."
    properties = echo.parameters["properties"]
    assert isinstance(properties, dict)
    assert properties.keys() == {"text", "note"}
    assert echo.parameters["required"] == ["text"]
    result = await desk.run("files.echo", '{"text": "hi"}')
    assert (result.text, result.outcome, result.result_bytes) == ("hi", common_pb2.OUTCOME_SUCCEEDED, 2)


@pytest.mark.long
async def test_a_server_of_pypi(open_desk):
    desk = await open_desk(time=ServerSettings(command=sys.executable, args=("-m", "mcp_server_time")))
    assert desk.names() == ["time.get_current_time", "time.convert_time"]
    result = await desk.run("time.get_current_time", '{"timezone": "Europe/Berlin"}')
    assert json.loads(result.text)["timezone"] == "Europe/Berlin"
    refused = await desk.run("time.get_current_time", '{"timezone": "Nowhere/Land"}')
    assert (refused.outcome, refused.error) == (common_pb2.OUTCOME_FAILED, "the tool reported an error")
    assert "Nowhere/Land" in refused.text


@pytest.mark.npm
@pytest.mark.skipif(shutil.which("npx") is None, reason="npx is not installed")
async def test_a_server_of_npm(open_desk):
    package = "@modelcontextprotocol/server-everything"
    prepare = await asyncio.create_subprocess_exec("npx", "-y", "-p", package, "true")  # so that it starts at once
    if await prepare.wait() != 0:
        pytest.skip("npm's registry cannot be reached")
    desk = await open_desk(every=ServerSettings(command="npx", args=("-y", package)))
    await desk.until(lambda: "every.echo" in desk.names())
    assert (await desk.run("every.echo", '{"message": "hi"}')).text == "Echo: hi"
    picture = await desk.run("every.get-tiny-image")
    assert "[image of type image/png," in picture.text
    assert picture.result_bytes > 1000
    assert (await desk.run("every.get-sum", '{"a": 1, "b": "x"}')).outcome == common_pb2.OUTCOME_FAILED


@pytest.mark.long
async def test_a_server_at_an_address(open_desk, http_server):
    desk = await open_desk(web=ServerSettings(url=http_server.url, headers={"Authorization": "Bearer t"}))
    assert (await desk.run("web.echo", '{"text": "hi"}')).text == "hi"
    for region in ("eu-west1", "Zürich\n", "=?base64?eA==?=", " "):
        told = await desk.run("web.routed", json.dumps({"region": region, "urgent": True}))
        assert (told.text, told.error) == (f"{region} True", None)
    assert (await desk.run("web.routed", '{"region": "eu"}')).text == "eu False"


@pytest.mark.long
async def test_a_server_that_cannot_be_had_stops_nothing(open_desk):
    """It is tried again for ever; the others serve."""
    gone = ServerSettings(command="no-such-program-here")
    broken = ServerSettings(command=sys.executable, args=("-c", "print('hello')"))
    away = ServerSettings(url="http://127.0.0.1:1/mcp")
    desk = await open_desk(gone=gone, broken=broken, away=away, good=of_tests())
    assert {name.partition(".")[0] for name in desk.names()} == {"good"}
    assert (await desk.run("good.echo", '{"text": "hi"}')).text == "hi"
    result = await desk.run("gone.echo")
    assert result.outcome == common_pb2.OUTCOME_INVALID_CALL
    assert "there is no such tool" in str(result.error)


@pytest.mark.long
async def test_a_server_that_comes_late_offers_its_tools_then(open_desk, http_server):
    http_server.kill()
    desk = await open_desk(web=ServerSettings(url=http_server.url))
    revision = desk.toolbox.revision
    assert desk.names() == []
    http_server.start()
    await desk.until(desk.names)
    assert desk.toolbox.revision > revision
    assert (await desk.run("web.echo", '{"text": "hi"}')).text == "hi"


@pytest.mark.long
async def test_a_server_that_dies_in_a_call_is_started_again(open_desk):
    """Whether the tool finished is not known; the next call has a new server."""
    desk = await open_desk(t=of_tests())
    result = await desk.run("t.die")
    assert result.outcome == common_pb2.OUTCOME_INTERRUPTED
    assert result.error == "the MCP server t ended in the middle of the call: whether the tool finished is not known"
    assert (await desk.run("t.echo", '{"text": "again"}')).text == "again"


@pytest.mark.long
async def test_an_address_that_goes_away_in_a_call_is_asked_again(open_desk, http_server):
    desk = await open_desk(web=ServerSettings(url=http_server.url))
    assert (await desk.run("web.die")).outcome == common_pb2.OUTCOME_INTERRUPTED
    http_server.kill()
    http_server.start()

    async with asyncio.timeout(30):
        while (await desk.run("web.echo", '{"text": "again"}')).text != "again":
            await asyncio.sleep(0.05)


@pytest.mark.long
async def test_a_call_that_takes_too_long_is_ended_and_the_server_goes_on(open_desk):
    desk = await open_desk(t=of_tests(timeout_seconds=0.5))
    server = desk.servers._servers["t"]
    connected = server._client
    result = await desk.run("t.sleep", '{"seconds": 60}')
    assert (result.outcome, result.error) == (
        common_pb2.OUTCOME_TIMED_OUT,
        "the MCP server t did not answer within 0.5 s",
    )
    async with asyncio.timeout(30):
        while (await desk.run("t.echo", '{"text": "hi"}')).text != "hi":
            pass  # half a second is little on a busy machine
    assert server._client is connected


@pytest.mark.long
async def test_a_cancelled_call_ends_at_once_and_the_server_goes_on(open_desk):
    desk = await open_desk(t=of_tests())
    call = asyncio.create_task(desk.run("t.sleep", '{"seconds": 60}'))
    await asyncio.sleep(0.2)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await desk.run("t.echo", '{"text": "hi"}')).text == "hi"


@pytest.mark.long
async def test_much_output_is_cut_for_the_model_and_told_in_full_size(open_desk):
    desk = await open_desk(t=of_tests())
    result = await desk.run("t.flood", '{"megabytes": 3}')
    assert (result.result_truncated, result.result_bytes) == (True, 3 * 2**20)
    assert len(result.text) < 60_000


@pytest.mark.long
@pytest.mark.parametrize("over", ["stdio", "http", "json"])
async def test_output_without_an_end_costs_the_server_its_connection_and_the_gateway_no_memory(
    open_desk, http_server, over
):
    if over == "json":  # one whole body in place of a stream of events
        http_server.kill()
        http_server.start("json")
    desk = await open_desk(t=of_tests() if over == "stdio" else ServerSettings(url=http_server.url))
    result = await desk.run("t.flood", '{"megabytes": 40}')
    assert result.outcome in (common_pb2.OUTCOME_INTERRUPTED, common_pb2.OUTCOME_FAILED)
    assert (await desk.run("t.echo", '{"text": "again"}')).text == "again"


@pytest.mark.long
async def test_what_a_server_says_of_a_failure_is_told_to_the_model_alone(open_desk, capsys):
    noisy = f"echo {SENTINEL}; echo {SENTINEL} >&2; exec {sys.executable} {PROGRAM}"
    desk = await open_desk(t=ServerSettings(command="sh", args=("-c", noisy)))
    failed = await desk.run("t.fail", json.dumps({"text": SENTINEL}))
    unfit = await desk.run("t.echo", json.dumps({"text": {"a": SENTINEL}}))
    assert (failed.outcome, failed.error) == (common_pb2.OUTCOME_FAILED, "the tool reported an error")
    assert SENTINEL not in str(unfit.error)
    said = capsys.readouterr()
    assert "mcp.messages_skipped" in said.out
    assert SENTINEL not in said.out + said.err


@pytest.mark.long
async def test_arguments_that_cannot_be_used_run_nothing(open_desk):
    desk = await open_desk(t=of_tests())
    for arguments, error in (
        ("{}", "required arguments are missing"),
        ("[1]", "must be a JSON object"),
        ('{"text": ', "not valid JSON"),
    ):
        result = await desk.run("t.echo", arguments)
        assert result.outcome == common_pb2.OUTCOME_INVALID_CALL
        assert error in str(result.error)
    assert "missing: text" in (await desk.run("t.echo", "{}")).text


@pytest.mark.long
async def test_a_picture_is_named_and_counted(open_desk):
    desk = await open_desk(t=of_tests())
    result = await desk.run("t.picture")
    assert "[image of type image/gif, " in result.text
    assert result.result_bytes > 10


@pytest.mark.long
async def test_a_server_sees_what_programs_need_and_what_the_file_names_and_no_key_of_the_gateway(
    open_desk, monkeypatch
):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-sentinel")
    monkeypatch.setenv("GATEWAY_OPENAI_API_KEY", "sk-sentinel")
    monkeypatch.setenv("SOMETHING", "else")
    desk = await open_desk(t=of_tests(env={"TOKEN": "given"}))
    seen = json.loads((await desk.run("t.environment")).text)
    assert seen["TOKEN"] == "given"
    assert seen["PATH"] == os.environ["PATH"]
    assert set(seen) <= {
        "PWD_NOW",
        "TOKEN",
        "ONRECORD_MCP",
        "LC_CTYPE",
        "HOME",
        "LANG",
        "LC_ALL",
        "LOGNAME",
        "PATH",
        "SHELL",
    } | {*("TERM", "TMPDIR", "TZ", "USER")}


@pytest.mark.long
async def test_a_server_loads_no_code_from_the_workspace(open_desk, tmp_path):
    """Python puts the folder that it runs in ahead of all others."""
    (tmp_path / "mcp_server_time.py").write_text("raise SystemExit(1)", encoding="utf-8")
    desk = await open_desk(time=ServerSettings(command=sys.executable, args=("-m", "mcp_server_time")), t=of_tests())
    assert "time.get_current_time" in desk.names()
    folder = json.loads((await desk.run("t.environment")).text)["PWD_NOW"]
    assert folder == str(tmp_path / "mcp" / "t")
    assert (tmp_path / "mcp" / "t").stat().st_mode & 0o777 == 0o700


@pytest.mark.long
async def test_a_name_in_the_file_that_the_server_does_not_have_is_warned_about(open_desk, capsys):
    await open_desk(t=of_tests(tools={"ecko": "deny"}, record={"echo": ["text"]}))
    assert "ecko" in capsys.readouterr().out


@pytest.mark.long
async def test_policies_are_the_file_s_by_tool_and_by_server(open_desk):
    desk = await open_desk(t=of_tests(policy="ask", tools={"echo": "allow", "die": "deny"}), u=of_tests())
    policies = {name: desk.toolbox.policy(name) for name in ("t.echo", "t.die", "t.sleep", "u.die")}
    assert policies == {"t.echo": "allow", "t.die": "deny", "t.sleep": "ask", "u.die": "allow"}
    assert "t.die" not in desk.names()
    assert (await desk.run("t.die")).outcome == common_pb2.OUTCOME_DENIED


@pytest.mark.long
async def test_a_tool_that_comes_later_is_offered(open_desk):
    desk = await open_desk(t=of_tests())
    revision = desk.toolbox.revision
    async with asyncio.timeout(30):
        while "t.grown" not in desk.names():  # the server tells nobody before it knows that somebody listens
            await desk.run("t.grow")
            await asyncio.sleep(0.05)
    assert desk.toolbox.revision > revision
    assert (await desk.run("t.grown")).text == "grown"


@pytest.mark.long
async def test_nothing_of_a_server_is_left_at_the_end(open_desk, tmp_path):
    """Not what it started in a session of its own either."""
    desk = await open_desk(t=of_tests())
    child = int((await desk.run("t.child")).text)
    server = parent_of(child)
    assert is_running(child)
    assert has_run_name(server)
    async with asyncio.timeout(30):
        while not has_run_name(child):  # a program has begun a moment before its environment can be read
            await asyncio.sleep(0.01)
    await desk.servers.aclose()
    assert not is_running(child)
    assert not is_running(server)
