"""A session's settings come back as they were given, also those that an older gateway has kept."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.conversations.session import settings_from_json, settings_to_json
from gateway_svc.messages import AssistantMessage, ToolMessage, UserMessage
from gateway_svc.turns.account import Totals
from recording.calls import ToolCall
from tests.support.conversations import history_of, open_sessions

text = st.text(st.characters(codec="utf-8"), max_size=9)
choices = st.builds(pb.EngineChoice, engine=text, model=text)
settings = st.builds(
    pb.SessionSettings,
    engine=text,
    model=text,
    system_prompt=text,
    max_cost_micros=st.none() | st.integers(0, 2**63 - 1),
    fallback=st.none() | choices,
    shadows=st.lists(choices, max_size=4),
    labels=st.dictionaries(text, text, max_size=4),
)


@given(settings)
def test_settings_come_back_from_json(given_):
    kept = {"settings": json.loads(json.dumps(settings_to_json(given_)))}
    assert settings_from_json(kept) == given_


OLDER_STATE = {
    "id": "s1",
    "engine": "openai",
    "model": "m1",
    "system_prompt": "be brief",
    "labels": {"team": "a"},
    "status": 2,
    "revision": 3,
    "turns": 1,
    "totals": {
        "steps": 2,
        "tool_calls": 1,
        "input_tokens": 30,
        "output_tokens": 4,
        "cached_input_tokens": 5,
        "reasoning_tokens": 1,
        "cost_micros": 420,
        "unpriced_steps": 1,
    },
    "created_at_ms": 1_795_000_000_000,
    "updated_at_ms": 1_795_000_001_000,
}
LATER_FIELDS = {
    "max_cost_micros": 1_000,
    "fallback": ["ollama", ""],
    "shadows": [["openai", "m2"]],
    "shadow_totals": {"steps": 1, "cost_micros": 7},
    "owner": "ada",
}
OLDER_MESSAGES = [
    {"user": "look"},
    {
        "assistant": {
            "text": "",
            "thinking": "",
            "tool_calls": [{"id": "row-1", "tool_call_id": "call_1", "name": "read", "arguments": "{}"}],
        }
    },
    {"tool": {"tool_call_id": "call_1", "tool_name": "read", "text": "high tide"}},
    {"assistant": {"text": "At noon.", "thinking": "", "tool_calls": []}},
]
COMMON: dict[str, Any] = {"engine": "openai", "model": "m1", "system_prompt": "be brief", "labels": {"team": "a"}}


@pytest.mark.parametrize(
    ("later", "expected", "shadow_totals"),
    [
        ({}, pb.SessionSettings(**COMMON), Totals()),
        ({**LATER_FIELDS, "max_cost_micros": 0}, None, Totals(requests=1, known_cost_micros=7)),
        (
            LATER_FIELDS,
            pb.SessionSettings(
                **COMMON,
                max_cost_micros=1_000,
                fallback=pb.EngineChoice(engine="ollama"),
                shadows=[pb.EngineChoice(engine="openai", model="m2")],
            ),
            Totals(requests=1, known_cost_micros=7),
        ),
    ],
    ids=["first", "no budget", "all"],
)
async def test_a_session_that_an_older_gateway_has_kept_goes_on(tmp_path, later, expected, shadow_totals):
    path = tmp_path / "sessions" / "s1.jsonl"
    path.parent.mkdir()
    lines = [{"session": OLDER_STATE | later}, *OLDER_MESSAGES]
    path.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))

    sessions = open_sessions(tmp_path)
    assert not path.exists(), "it was moved"
    state = await sessions.get("s1")
    if expected is None:
        assert not state.settings.HasField("max_cost_micros")
    else:
        assert state.settings == expected
    assert (state.turns, state.revision, state.owner) == (1, 3, later.get("owner", ""))
    assert state.totals == Totals(
        requests=2,
        tool_calls=1,
        input_tokens=30,
        output_tokens=4,
        cached_input_tokens=5,
        reasoning_tokens=1,
        known_cost_micros=420,
        unpriced_requests=1,
    )
    assert state.shadow_totals == shadow_totals

    assert await history_of(tmp_path, "s1") == [
        UserMessage("look"),
        AssistantMessage("", "", (ToolCall("row-1", "call_1", "read", "{}"),)),
        ToolMessage("call_1", "read", "high tide"),
        AssistantMessage("At noon."),
    ]
    async with sessions.hold("s1") as session:
        await session.save()
    assert (await sessions.get("s1")).settings == state.settings
