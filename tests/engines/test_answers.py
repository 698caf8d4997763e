"""What both engines make of the scripted model server's answers."""

import pytest

from demo.model_server import ModelServer
from demo.script import Call, Script, Step, Tokens
from gateway_svc.engines import Engine
from gateway_svc.messages import AssistantMessage, Message, ToolMessage, UserMessage
from recording.calls import Usage
from tests.engines.asking import READ, ask, ask_again, engine_for

pytestmark = pytest.mark.parametrize("name", ["ollama", "openai", "responses", "anthropic"])

TEXT = "Grüße, 世界! It is 5 o'clock. 🙂\n\nBye."


async def answer_to(step: Step, name: str) -> tuple[list[str], AssistantMessage, Usage, str]:
    async with ModelServer(Script(steps=(step,))) as server:
        pieces, result = await ask(engine_for(server, name))
    assert result.model == "scripted"
    return pieces, result.message, result.usage, result.finish


async def run_turn(engine: Engine, steps: int) -> list[AssistantMessage]:
    """What the agent loop does, without its tools."""
    messages: list[Message] = [UserMessage("go")]
    answers: list[AssistantMessage] = []
    for _ in range(steps):
        _, result = await ask_again(engine, *messages, tools=[READ])
        answers.append(result.message)
        messages.append(result.message)
        calls = result.message.tool_calls
        messages += [ToolMessage(call.provider_call_id, call.name, f"result of {call.name}") for call in calls]
    return answers


async def test_text_comes_token_by_token_and_whole_in_the_end(name):
    pieces, message, _, finish = await answer_to(Step(text=TEXT), name)
    assert len(pieces) > 5
    assert "".join(pieces) == message.text == TEXT
    assert finish == "stop"


@pytest.mark.long
@pytest.mark.parametrize("split_bytes", [1, 2, 3, 7, 1000])
async def test_an_answer_is_the_same_wherever_the_network_splits_it(name, split_bytes):
    calls = (Call(name="read", arguments={"path": "ä🙂.txt"}), Call(name="bash", arguments={"command": "ls"}))
    step = Step(text=TEXT, thinking="Hm, 世.", tool_calls=calls, argument_chars=2)
    _, expected, usage, _ = await answer_to(step, name)
    _, message, usage_split, _ = await answer_to(step.model_copy(update={"split_bytes": split_bytes}), name)
    assert (message.text, message.thinking) == (TEXT, "Hm, 世.") == (expected.text, expected.thinking)
    assert [(call.name, call.arguments) for call in message.tool_calls] == [
        (call.name, call.arguments) for call in expected.tool_calls
    ]
    assert usage_split == usage


async def test_tokens_are_taken_from_the_server(name):
    tokens = Tokens(input=100, output=20, cached=60, reasoning=5)
    _, _, usage, _ = await answer_to(Step(text="x", tokens=tokens), name)
    cached, reasoning = (0, 0) if name == "ollama" else (60, 5)
    assert usage == Usage(100, 20, cached, reasoning)


async def test_a_count_that_makes_no_sense_is_no_reason_to_lose_the_answer(name):
    _, message, usage, _ = await answer_to(Step(text="x", tokens=Tokens(input=-5, output=2**80)), name)
    assert message.text == "x"
    assert usage == Usage(0, 0, complete=False)


@pytest.mark.parametrize("told", ["length", "stop"])
async def test_the_reason_why_the_model_stopped_is_told(name, told):
    assert (await answer_to(Step(text="x", finish=told), name))[3] == told


async def test_two_calls_of_one_step_keep_order_ids_and_arguments(name):
    calls = (Call(name="read", arguments={"path": "a"}, id="call_a"), Call(name="bash", arguments={}, id="call_b"))
    _, message, _, _ = await answer_to(Step(tool_calls=calls), name)
    assert [(call.provider_call_id, call.name) for call in message.tool_calls] == [
        ("call_a", "read"),
        ("call_b", "bash"),
    ]
    assert [call.arguments.replace(" ", "") for call in message.tool_calls] == ['{"path":"a"}', "{}"]


async def test_malformed_arguments_come_out_as_the_model_wrote_them(name):
    _, message, _, _ = await answer_to(Step(tool_calls=(Call(name="read", arguments='{"path": '),)), name)
    assert message.tool_calls[0].arguments.strip() == '{"path":'


@pytest.mark.long
@pytest.mark.parametrize("call_id", ["", "call_again", None])
async def test_a_turn_of_many_steps_is_taken_whatever_the_ids_are(name, call_id):
    """The server refuses a history whose calls and results do not fit together."""
    calls = tuple(Call(name="read", arguments={"path": str(number)}, id=call_id) for number in range(2))
    async with ModelServer(Script(steps=(Step(tool_calls=calls, repeat=60), Step(text="done")))) as server:
        engine = engine_for(server, name)
        answers = await run_turn(engine, 61)
        await engine.aclose()
    assert answers[-1].text == "done"
    assert len({call.id for answer in answers for call in answer.tool_calls}) == 120


async def test_a_connection_serves_one_step_after_another(name):
    async with ModelServer(Script(steps=(Step(text="a", repeat=50),))) as server:
        engine = engine_for(server, name)
        await run_turn(engine, 50)
        await engine.aclose()
    assert len({request.client for request in server.requests}) == 1
