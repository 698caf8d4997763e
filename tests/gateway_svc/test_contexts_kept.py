"""A turn encodes what is new in its session, and sends what it would send without having kept anything."""

import json

import pytest
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.script import Call, Refusal, Script, Step
from gateway_svc.engines.ollama import OllamaEngine
from tests.gateway_svc.house import House, open_house

READ = Call(name="read", arguments={"path": "notes.txt"})
SCRIPT = Script(steps=(Step(tool_calls=(READ,)), Step(text="So it is.")))


class Encodings:
    """How many messages were encoded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        encode = OllamaEngine.encode_message

        def counted(engine, message):
            self.count += 1
            return encode(engine, message)

        monkeypatch.setattr(OllamaEngine, "encode_message", counted)


async def told(house: House, session_id: str | None, **request) -> str:
    """Runs a turn and returns its session."""
    settings = {"session_id": session_id} if session_id else {"new_session": pb.SessionSettings(system_prompt="brief")}
    events = await house.run(**settings, **request)
    return events[0].turn_accepted.session_id


def sent(house: House) -> list[dict[str, str]]:
    """The last request's messages, without ids, which are made by chance."""
    said = json.loads(house.ollama.requests[-1].body)["messages"]
    return [{name: value for name, value in message.items() if name in ("role", "content")} for message in said]


async def test_a_turn_encodes_what_is_new_however_much_was_said(tmp_path, monkeypatch):
    encodings = Encodings(monkeypatch)
    async with open_house(tmp_path, SCRIPT, SCRIPT) as house:
        session_id, counts = None, []
        for number in range(12):
            before = encodings.count
            session_id = await told(house, session_id, input=f"question {number}")
            counts.append(encodings.count - before)
    assert counts == [5, *[4] * 11], "the system prompt once; then what was asked, called, found and answered"


@pytest.mark.long
@pytest.mark.parametrize("change", ["nothing", "model", "system_prompt", "engine between", "refused content"])
async def test_it_sends_what_a_gateway_that_has_just_started_would(tmp_path, change):
    async with open_house(tmp_path, SCRIPT, SCRIPT) as house:
        session_id = await told(house, None, input="first")
        await told(house, session_id, input="second")
        if change == "system_prompt":
            request = pb.UpdateSessionRequest(
                session_id=session_id, settings=pb.SessionSettings(system_prompt="be long")
            )
            request.update_mask.paths.append("system_prompt")
            await house.turns.sessions.update(request)
        elif change == "engine between":
            await told(house, session_id, input="other", engine="openai")
            await told(house, session_id, input="back", engine="ollama")
        elif change == "refused content":
            house.ollama.script = Script(
                steps=(Step(refuse=Refusal(status=400, message="content_policy_violation", code="content_filter")),)
            )
            await told(house, session_id, input="bad words")
            house.ollama.script = SCRIPT
        model = {"model": "other"} if change == "model" else {}
        await told(house, session_id, input="last", **model)
        with_memory = sent(house)
        assert ("withheld" in str(with_memory)) is (change == "refused content")
        vars(house.sessions._conversations)["_memory"]._kept.clear()  # as after a start
        await told(house, session_id, input="again", **model)
        assert sent(house)[: len(with_memory)] == with_memory
