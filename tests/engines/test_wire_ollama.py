"""Streams as Ollama's servers send them, written by hand, with what older ones leave out."""

import pytest

from gateway_svc.errors import EngineBrokeOff
from recording.calls import Usage
from tests.engines.asking import ask_ollama, ndjson, response

HEAD = {"model": "qwen3:8b", "created_at": "2026-11-20T09:12:01.123456Z"}
LAST = {
    **HEAD,
    "message": {"role": "assistant", "content": ""},
    "done": True,
    "done_reason": "stop",
    "total_duration": 4883583458,
    "load_duration": 1334875,
    "prompt_eval_count": 26,
    "prompt_eval_duration": 342546000,
    "eval_count": 282,
    "eval_duration": 4535599000,
}


def piece(**message: object) -> dict[str, object]:
    return {**HEAD, "message": {"role": "assistant", "content": "", **message}, "done": False}


def call(name: str, arguments: object, **more: object) -> dict[str, object]:
    return {**more, "function": {"name": name, "arguments": arguments}}


async def test_a_thinking_model_with_calls_in_several_chunks():
    """Every call has the index 0 on some servers: they are appended, never merged."""
    first = {"id": "call_4jx1abcd", "function": {"index": 0, "name": "read", "arguments": {"path": "a", "limit": 3}}}
    second = {"id": "call_9kq2efgh", "function": {"index": 0, "name": "bash", "arguments": {"command": "echo 'é'"}}}
    pieces, result = await ask_ollama(
        ndjson(
            piece(thinking="Let"),
            piece(thinking=" me see."),
            piece(tool_calls=[first]),
            piece(tool_calls=[second]),
            LAST,
        )
    )
    assert pieces == []
    assert result.model == "qwen3:8b"
    assert result.message.thinking == "Let me see."
    assert [(one.provider_call_id, one.name, one.arguments) for one in result.message.tool_calls] == [
        ("call_4jx1abcd", "read", '{"path":"a","limit":3}'),
        ("call_9kq2efgh", "bash", '{"command":"echo \'é\'"}'),
    ]
    assert result.usage == Usage(26, 282)


async def test_an_older_server_gives_no_ids_and_calls_in_the_last_chunk():
    last = {
        **LAST,
        "message": {"role": "assistant", "content": "", "tool_calls": [call("read", {"path": "a"}), call("now", None)]},
    }
    _, result = await ask_ollama(ndjson(piece(content="Hm."), last))
    assert [(one.name, one.arguments) for one in result.message.tool_calls] == [("read", '{"path":"a"}'), ("now", "{}")]
    assert len({one.provider_call_id for one in result.message.tool_calls}) == 2
    assert result.message.text == "Hm."


async def test_arguments_as_text_or_as_no_object_are_left_to_the_loop():
    _, result = await ask_ollama(ndjson(piece(tool_calls=[call("read", '{"path": '), call("read", [1])]), LAST))
    assert [one.arguments for one in result.message.tool_calls] == ['{"path": ', "[1]"]


async def test_without_counts_the_usage_is_incomplete():
    """No request reads nothing."""
    last = {key: value for key, value in LAST.items() if "count" not in key}
    _, result = await ask_ollama(ndjson(piece(content="ok"), last))
    assert result.usage == Usage(0, 0, complete=False)


@pytest.mark.parametrize("reason", ["load", "unload", "error", "a_new_reason"])
async def test_an_end_for_another_reason_is_a_failure_by_its_name(reason):
    last = {**HEAD, "message": {"role": "assistant", "content": ""}, "done": True, "done_reason": reason}
    with pytest.raises(EngineBrokeOff, match=f"for the reason {reason}"):
        await ask_ollama(ndjson(piece(content="half"), last))


async def test_nulls_blank_lines_crlf_and_a_missing_last_newline_are_taken():
    body = (
        '{"model":"served","message":{"content":null,"tool_calls":null,"thinking":null},"done":false}\r\n\r\n'
        '{"model":null,"message":{"content":"ok"}}\n'
        '{"message":null,"done":true,"done_reason":"stop"}'
    )
    pieces, result = await ask_ollama(response(body, "application/x-ndjson"))
    assert pieces == ["ok"]
    assert result.model == "served"


async def test_a_surrogate_pair_in_a_json_escape_is_one_character_and_half_a_pair_is_replaced():
    body = '{"message":{"content":"\\ud83d\\ude42 \\ud83d."},"done":true,"done_reason":"stop"}\n'
    pieces, result = await ask_ollama(response(body, "application/x-ndjson"))
    assert pieces == ["🙂 \ufffd."] == [result.message.text]
