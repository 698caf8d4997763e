"""A step that nobody wants any more ends at once, and the model server notices."""

import asyncio

import pytest

from demo.model_server import ModelServer
from demo.script import Refusal, Script, Step
from gateway_svc.engines import TextDelta
from gateway_svc.engines.ollama import OllamaEngine
from gateway_svc.engines.openai.chat import OpenAIEngine
from gateway_svc.engines.wire.patience import Patience
from gateway_svc.messages import UserMessage
from tests.engines.asking import ask, ask_again, engine_for, raw_server

pytestmark = pytest.mark.parametrize("name", ["ollama", "openai", "responses", "anthropic"])

PATIENT = Patience(wait_s=3600)
SLOW = Script(steps=(Step(text="one two three four five", chunk_delay_ms=60_000),))


@pytest.mark.long
async def test_closing_the_generator_closes_the_request(name):
    script = Script(steps=(Step(text="one two three", chunk_delay_ms=100),))
    async with ModelServer(script) as server:
        engine = engine_for(server, name)
        events = engine.step("m", [engine.encode_message(UserMessage("go"))], b"[]")
        assert isinstance(await anext(events), TextDelta)
        await events.aclose()
        async with asyncio.timeout(30):
            await server.requests[0].gone.wait()
        await engine.aclose()


@pytest.mark.parametrize(
    "script", [SLOW, Script(steps=(Step(delay_ms=60_000),))], ids=["in the stream", "before the first byte"]
)
async def test_cancelling_the_consumer_closes_the_request(name, script):
    async with ModelServer(script) as server:
        engine = engine_for(server, name, PATIENT)
        asking = asyncio.create_task(ask_again(engine))
        await server.received(1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        async with asyncio.timeout(30):
            await server.requests[0].gone.wait()
        await engine.aclose()


async def test_waiting_for_the_next_try_can_be_cancelled(name):
    script = Script(steps=(Step(refuse=Refusal(status=503)),))
    async with ModelServer(script) as server:
        asking = asyncio.create_task(ask(engine_for(server, name, PATIENT)))
        await server.received(1)
        await asyncio.sleep(0.02)
        asking.cancel()
        async with asyncio.timeout(30):
            with pytest.raises(asyncio.CancelledError):
                await asking
    assert len(server.requests) == 1


async def test_a_cancelled_step_leaves_the_engine_fit_for_others(name):
    async with ModelServer(SLOW) as server:
        engine = engine_for(server, name)
        cancelled = asyncio.create_task(ask_again(engine))
        await server.received(1)
        server.script = Script(steps=(Step(text="ok"),))
        others = [asyncio.create_task(ask_again(engine)) for _ in range(20)]
        cancelled.cancel()
        assert [(await other)[0] for other in others] == [["ok"]] * 20
        await engine.aclose()


@pytest.mark.long
async def test_a_server_that_keeps_the_stream_open_behind_the_end_is_not_waited_for(name):
    end = (
        '{"message": {"content": "ok"}, "done": true, "done_reason": "stop"}\n'
        if name == "ollama"
        else 'data: {"choices": [{"delta": {"content": "ok"}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
    )
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 100000\r\n\r\n"
    async with raw_server([head + end.encode()] + [b""] * 100_000) as server:
        engine = OllamaEngine(server.url, "m") if name == "ollama" else OpenAIEngine(server.url, "m")
        async with asyncio.timeout(30):
            pieces, _ = await ask(engine)
    assert pieces == ["ok"]
