"""Streams as the servers that speak OpenAI's format send them, written by hand after each one's own."""

import json
from typing import Any

import pytest

from gateway_svc.engines import StepResult
from gateway_svc.engines.openai.chat import OpenAIEngine
from gateway_svc.errors import EngineBrokeOff, EngineProtocolError, EngineRejected
from gateway_svc.messages import UserMessage
from recording.calls import Usage
from tests.engines.asking import QUICK, ask_again, ask_openai, events, raw_server, response


def chunk(delta: object = None, finish: str | None = None, **more: object) -> dict[str, Any]:
    choices = [] if delta is None and finish is None else [{"index": 0, "delta": delta or {}, "finish_reason": finish}]
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "served-model", "choices": choices, **more}


def calls(result: StepResult) -> list[tuple[str, str, str]]:
    return [(call.provider_call_id, call.name, call.arguments) for call in result.message.tool_calls]


async def test_openai():
    pieces, result = await ask_openai(
        events(
            chunk({"role": "assistant", "content": None, "refusal": None}, usage=None, obfuscation="xx"),
            chunk({"content": "Let me "}),
            chunk({"content": "look."}),
            chunk(
                {
                    "tool_calls": [
                        {"index": 0, "id": "call_A", "type": "function", "function": {"name": "read", "arguments": ""}}
                    ]
                }
            ),
            chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"pa'}}]}),
            chunk({"tool_calls": [{"index": 0, "function": {"arguments": 'th":"a"}'}}]}),
            chunk(
                {
                    "tool_calls": [
                        {
                            "index": 1,
                            "id": "call_B",
                            "type": "function",
                            "function": {"name": "bash", "arguments": "{}"},
                        }
                    ]
                }
            ),
            chunk({}, "tool_calls"),
            chunk(
                usage={
                    "prompt_tokens": 120,
                    "completion_tokens": 40,
                    "total_tokens": 160,
                    "prompt_tokens_details": {"cached_tokens": 64, "audio_tokens": 0},
                    "completion_tokens_details": {"reasoning_tokens": 16, "accepted_prediction_tokens": 0},
                }
            ),
        )
    )
    assert pieces == ["Let me ", "look."]
    assert calls(result) == [("call_A", "read", '{"path":"a"}'), ("call_B", "bash", "{}")]
    assert result.usage == Usage(120, 40, 64, 16)
    assert result.model == "served-model"


async def test_azure_begins_with_a_chunk_without_choices_and_a_refusal_is_an_answer():
    pieces, result = await ask_openai(
        events(
            {"choices": [], "prompt_filter_results": [{}], "model": ""},
            chunk({"refusal": "I cannot help with that."}),
            chunk({}, "content_filter"),
        )
    )
    assert pieces == ["I cannot help with that."]
    assert result.finish == "content_filter"
    assert result.usage.complete is False


async def test_llama_cpp():
    """Its id is its own, timings come along, and reasoning is in reasoning_content."""
    _, result = await ask_openai(
        events(
            chunk({"role": "assistant", "content": None}),
            chunk({"reasoning_content": "The file"}),
            chunk({"reasoning_content": ", then."}),
            chunk(
                {
                    "tool_calls": [
                        {"index": 0, "id": "AbC123", "type": "function", "function": {"name": "read", "arguments": "{"}}
                    ]
                }
            ),
            chunk({"tool_calls": [{"index": 0, "function": {"arguments": '"path":"README.md"}'}}]}),
            chunk({}, "tool_calls"),
            chunk(usage={"completion_tokens": 9, "prompt_tokens": 55, "total_tokens": 64}, timings={"prompt_n": 1}),
        )
    )
    assert result.message.thinking == "The file, then."
    assert calls(result) == [("AbC123", "read", '{"path":"README.md"}')]
    assert result.usage == Usage(55, 9)


async def test_vllm_with_usage_in_every_chunk_and_reasoning_under_its_new_name():
    _, result = await ask_openai(
        events(
            chunk(
                {"role": "assistant", "content": ""},
                usage={"prompt_tokens": 10, "completion_tokens": 0, "total_tokens": 10},
            ),
            chunk({"reasoning": "hm"}, usage={"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11}),
            chunk({"content": "ok"}, "stop", stop_reason=None, token_ids=None),
            chunk(
                usage={"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13, "prompt_tokens_details": None}
            ),
        )
    )
    assert (result.message.thinking, result.message.text) == ("hm", "ok")
    assert result.usage == Usage(10, 3)


async def test_openrouter_comments_are_skipped_and_both_names_of_reasoning_count_once():
    comment = ": OPENROUTER PROCESSING\n\n"
    payloads = (
        chunk({"role": "assistant", "content": "", "reasoning": "a", "reasoning_content": "a"}),
        chunk({"content": "ok"}, "stop", provider="X"),
        chunk({"role": "assistant", "content": ""}, usage={"prompt_tokens": 7, "completion_tokens": 2, "cost": 0.1}),
    )
    body = comment.join(
        ["", comment, *(f"data: {json.dumps(payload)}\n\n" for payload in payloads), "data: [DONE]\n\n"]
    )
    pieces, result = await ask_openai(response(body))
    assert pieces == ["ok"]
    assert result.message.thinking == "a"
    assert result.usage == Usage(7, 2)


async def test_openrouter_tells_an_error_with_finish_reason_error():
    error = {"code": 400, "message": "Provider returned error"}
    with pytest.raises(EngineRejected, match="status 400 and says: Provider returned error"):
        await ask_openai(events(chunk({"content": "Hal"}), {**chunk({"content": ""}, "error"), "error": error}))


async def test_deepseek_tells_cached_tokens_under_its_own_name():
    _, result = await ask_openai(
        events(
            chunk(
                {"content": "ok"},
                "stop",
                usage={"prompt_tokens": 30, "completion_tokens": 1, "prompt_cache_hit_tokens": 20},
            )
        )
    )
    assert result.usage == Usage(30, 1, 20)


async def test_a_finish_reason_is_end_enough_for_a_server_without_done():
    _, result = await ask_openai(events(chunk({"content": "ok"}), chunk({}, "stop"), done=False))
    assert result.message.text == "ok"


async def test_done_is_no_end_of_an_answer_that_has_told_none():
    """Proxies send it too where the server behind them broke off."""
    with pytest.raises(EngineBrokeOff, match="no finish_reason: what is behind it broke off"):
        await ask_openai(events(chunk({"content": "half"})))


async def test_neither_is_no_end():
    with pytest.raises(EngineProtocolError, match="ended before the answer was complete"):
        await ask_openai(events(chunk({"content": "ok"}), done=False))


async def test_an_empty_finish_reason_is_no_end():
    """Some servers send one with every chunk: an answer that is cut would count as whole."""
    with pytest.raises(EngineBrokeOff):
        await ask_openai(events(chunk({"content": "o"}, ""), chunk({"content": "k"}, ""), done=False))


async def test_mistrals_models_that_think_send_content_in_parts():
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "A "}, {"type": "text", "text": "file."}]}
    pieces, result = await ask_openai(
        events(
            chunk({"role": "assistant", "content": [thinking]}),
            chunk({"content": [{"type": "thinking", "thinking": " Yes."}, {"type": "text", "text": "Hel"}]}),
            chunk({"content": "lo"}, "stop"),
        )
    )
    assert (pieces, result.message.text) == (["Hel", "lo"], "Hello")
    assert result.message.thinking == "A file. Yes."


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
async def test_thoughts_are_taken_under_each_name_that_servers_have_for_them(name):
    _, result = await ask_openai(events(chunk({name: "hm"}), chunk({"content": "ok"}, "stop")))
    assert (result.message.thinking, result.message.text) == ("hm", "ok")


async def test_an_answer_in_one_piece_is_taken_from_a_server_that_does_not_stream():
    body = {
        "model": "served-model",
        "choices": [
            {
                "index": 0,
                "finish_reason": "tool_calls",
                "message": {
                    "role": "assistant",
                    "content": "Look:",
                    "tool_calls": [
                        {"id": "a", "type": "function", "function": {"name": "read", "arguments": "{}"}},
                        {"id": "b", "type": "function", "function": {"name": "read", "arguments": '{"path":"b"}'}},
                    ],
                },
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4},
    }
    pieces, result = await ask_openai(response(json.dumps(body, indent=2), "application/json; charset=utf-8"))
    assert pieces == ["Look:"]
    assert calls(result) == [("a", "read", "{}"), ("b", "read", '{"path":"b"}')]


async def test_vllm_tells_an_error_in_a_shape_of_its_own():
    error = {"object": "error", "message": "engine died", "type": "InternalServerError", "code": 500}
    with pytest.raises(EngineProtocolError, match="status 500 and says: engine died"):
        await ask_openai(events(chunk({"content": "Hal"}), error))


async def test_an_error_with_status_200_is_an_error():
    with pytest.raises(EngineProtocolError, match="says: no provider"):
        await ask_openai(response('{"error": {"message": "no provider"}}', "application/json"))


async def test_other_choices_than_the_first_are_left_out():
    second = {"index": 1, "delta": {"content": "no"}, "finish_reason": None}
    pieces, _ = await ask_openai(events({"choices": [second]}, chunk({"content": "yes"}, "stop")))
    assert pieces == ["yes"]


async def test_thoughts_go_back_under_the_name_under_which_they_came():
    call = {"index": 0, "id": "a", "function": {"name": "read", "arguments": "{}"}}
    for name in ("reasoning", "reasoning_content"):
        answers = (
            events(chunk({name: "hm", "tool_calls": [call]}, "tool_calls")),
            events(chunk({"content": "ok"}, "stop")),
        )
        async with raw_server(*answers) as server:
            engine = OpenAIEngine(server.url, "m", patience=QUICK)
            _, result = await ask_again(engine)
            await ask_again(engine, UserMessage("go"), result.message)
            await engine.aclose()
        sent = server.bodies[1]["messages"][1]
        assert {key: value for key, value in sent.items() if "reasoning" in key} == {name: "hm"}


async def test_a_surrogate_pair_that_fragments_tear_apart_is_put_together_in_arguments():
    """A server that cuts text at UTF-16 units may escape each half on its own."""
    halves = '["\ud83d', '\ude42"]'
    fragments = [{"index": 0, "id": "a", "function": {"name": "read", "arguments": halves[0]}}]
    rest = [{"index": 0, "function": {"arguments": halves[1]}}]
    _, result = await ask_openai(events(chunk({"tool_calls": fragments}), chunk({"tool_calls": rest}, "stop")))
    assert result.message.tool_calls[0].arguments == '["🙂"]'
