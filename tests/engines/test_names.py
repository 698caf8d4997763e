"""Tools' names on wires that take few characters: each goes out in a form that fits and comes back as it was."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.model_server import ModelServer
from demo.script import Call, Script, Step
from gateway_svc.engines.wire.names import WireNames
from gateway_svc.messages import ToolDefinition, ToolMessage, UserMessage
from tests.engines.asking import ask, engine_for

FITS = re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]{0,63}")
"""What Gemini takes of what OpenAI takes."""


@given(st.lists(st.text(min_size=1, max_size=80), max_size=12, unique=True))
def test_names_fit_are_told_apart_and_come_back(names):
    wire = WireNames()
    wire.offer(names)
    sent = [wire.to_wire(name) for name in names]
    assert all(map(FITS.fullmatch, sent))
    assert len(set(sent)) == len(sent)
    assert [wire.to_own(name) for name in sent] == names
    assert all(name == told for name, told in zip(names, sent, strict=True) if FITS.fullmatch(name))


def test_two_that_would_look_alike_are_told_apart_whatever_their_order():
    for names in (["files.read", "files__read"], ["files__read", "files.read"]):
        wire = WireNames()
        wire.offer(names)
        assert wire.to_wire("files__read") == "files__read"
        assert wire.to_wire("files.read").startswith("files__read_")


@pytest.mark.parametrize("name", ["openai", "responses"])
async def test_a_tool_with_a_dot_is_offered_called_and_told_back(name):
    """The model sees what OpenAI takes; the call has the gateway's own name, and so has the row."""
    tool = ToolDefinition("files.read", "Reads.", {"type": "object", "properties": {}})
    script = Script(steps=(Step(tool_calls=(Call(name="files__read"),)), Step(text="ok")))
    async with ModelServer(script) as server:
        _, result = await ask(engine_for(server, name), tools=[tool])
        (call,) = result.message.tool_calls
        assert call.name == "files.read"
        told = ToolMessage(call.provider_call_id, call.name, "x")
        await ask(engine_for(server, name), UserMessage("go"), result.message, told)
        first, second = (request.json for request in server.requests)
    assert "files__read" in json.dumps(first["tools"])
    assert "files.read" not in json.dumps([first, second])


def test_a_name_that_a_model_made_up_goes_back_in_a_form_that_fits():
    assert WireNames().to_wire("no such.tool!") == "no_such__tool_"
    assert WireNames().to_wire("") == "unnamed"
