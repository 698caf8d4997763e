"""What becomes of a model server that is down, refuses, or breaks off."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from demo.model_server import ModelServer
from demo.script import Refusal, Script, Step
from gateway_svc.engines import TextDelta
from gateway_svc.engines.anthropic.messages import AnthropicEngine
from gateway_svc.engines.ollama import OllamaEngine
from gateway_svc.engines.openai.chat import OpenAIEngine
from gateway_svc.engines.openai.responses import ResponsesEngine
from gateway_svc.engines.wire.failures import presentable, retry_after_s
from gateway_svc.engines.wire.patience import Patience
from gateway_svc.errors import (
    EngineBrokeOff,
    EngineError,
    EngineProtocolError,
    EngineRateLimited,
    EngineRejected,
    EngineUnavailable,
    ModelNotFound,
)
from gateway_svc.messages import UserMessage
from tests.engines.asking import QUICK, ask, engine_for, raw_server, response
from tests.support.ports import own_port

ENGINES = {"ollama": OllamaEngine, "openai": OpenAIEngine, "responses": ResponsesEngine, "anthropic": AnthropicEngine}
HEAD = {"ollama": 0, "openai": 0, "responses": 4, "anthropic": 3}
"""How many chunks of a scripted stream come ahead of those with text."""
both = pytest.mark.parametrize("name", ["ollama", "openai", "responses", "anthropic"])


async def failure_of(script: Script, name: str, patience: Patience = QUICK) -> tuple[EngineError, int, list[str]]:
    """The error, how many requests were made, and the pieces of text that came before it."""
    pieces: list[str] = []
    async with ModelServer(script) as server:
        engine = engine_for(server, name, patience)

        async def collect() -> None:
            async for event in engine.step("scripted", [engine.encode_message(UserMessage("SENTINEL"))], b"[]"):
                assert isinstance(event, TextDelta)
                pieces.append(event.text)

        with pytest.raises(EngineError) as caught:
            await collect()
        await engine.aclose()
        assert "SENTINEL" not in str(caught.value)
        assert f"engine {engine.name}, model scripted" in str(caught.value)
        return caught.value, len(server.requests), pieces


def refusing(status: int, **more: object) -> Script:
    return Script(steps=(Step(text="ok", refuse=Refusal.model_validate({"status": status, **more})),))


@both
@pytest.mark.parametrize(
    ("status", "kind", "requests"),
    [
        (400, EngineRejected, 1),
        (401, EngineRejected, 1),
        (403, EngineRejected, 1),
        (404, EngineRejected, 1),
        (408, EngineUnavailable, 3),
        (409, EngineUnavailable, 3),
        (422, EngineRejected, 1),
        (424, EngineUnavailable, 3),
        (498, EngineUnavailable, 3),
        (429, EngineRateLimited, 3),
        (500, EngineUnavailable, 3),
        (503, EngineUnavailable, 3),
        (529, EngineUnavailable, 3),
        (308, EngineRejected, 1),
        (204, EngineProtocolError, 1),
    ],
)
async def test_each_status_has_its_error_and_only_what_may_pass_is_tried_again(name, status, kind, requests):
    body = "" if status == 204 else None
    error, made, _ = await failure_of(refusing(status, message="because", body=body), name)
    assert type(error) is kind
    assert error.http_status == status
    assert f"HTTP {status}" in str(error)
    assert made == requests
    if status not in (204, 308):
        assert "says: because" in str(error)


@both
@pytest.mark.parametrize(
    ("status", "more", "kind", "requests"),
    [
        (400, {"message": "The service may be temporarily overloaded, please try again later"}, EngineUnavailable, 3),
        (400, {"message": "unexpected EOF"}, EngineUnavailable, 3),
        (400, {"headers": {"x-should-retry": "true"}}, EngineRejected, 3),
        (500, {"headers": {"x-should-retry": "false"}}, EngineUnavailable, 1),
    ],
)
async def test_a_server_tells_in_words_or_by_a_header_whether_its_failure_passes(name, status, more, kind, requests):
    error, made, _ = await failure_of(refusing(status, **more), name)
    assert type(error) is kind
    assert made == requests


@both
async def test_a_model_that_the_server_does_not_have_is_told_apart(name):
    error, made, _ = await failure_of(Script(models=("another",)), name)
    assert type(error) is ModelNotFound
    assert error.http_status == 404
    assert str(error).endswith("; it offers another")
    assert made == 2, "the turn's request and that for the list"


@both
async def test_a_wrong_path_is_no_missing_model(name):
    async with ModelServer(Script()) as server:
        wrong = f"{server.url}/elsewhere"
        engine = OllamaEngine(wrong, "m") if name == "ollama" else OpenAIEngine(wrong, "m")
        with pytest.raises(EngineRejected, match="says: 404 page not found"):
            await ask(engine)


@both
async def test_what_passes_is_overcome_and_nobody_notices(name):
    async with ModelServer(refusing(503, times=2)) as server:
        pieces, result = await ask(engine_for(server, name))
    assert pieces == ["ok"] == [result.message.text]
    assert len(server.requests) == 3


SPENT = {
    "OpenAI": {"message": "quota", "code": "insufficient_quota"},
    "OpenAI without a card": {"message": "Your account is not active", "code": "billing_not_active"},
    "Moonshot": {"message": "Your account is suspended", "type": "exceeded_current_quota_error"},
    "Z.ai": {"message": "Insufficient balance or no resource package. Please recharge.", "code": "1113"},
    "Ollama's cloud": {"message": "you (me) have reached your weekly usage limit, upgrade for higher limits"},
    "a proxy": {"message": "x", "code": 429, "metadata": {"raw": '{"error": {"message": "insufficient balance, …"}}'}},
}


@both
@pytest.mark.parametrize("who", SPENT)
async def test_a_quota_that_is_used_up_is_not_asked_for_again(name, who):
    script = refusing(429, body=json.dumps({"error": SPENT[who]}))
    error, made, _ = await failure_of(script, name)
    assert type(error) is EngineRateLimited
    assert made == 1


@both
@pytest.mark.parametrize("header", ["Retry-After", "retry-after-ms"])
async def test_retry_after_is_honoured(name, header, monkeypatch):
    waits: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        waits.append(seconds)
        await sleep(0)

    script = refusing(429, times=1, headers={header: "7" if header == "Retry-After" else "7000"})
    async with ModelServer(script) as server:
        monkeypatch.setattr("gateway_svc.engines.wire.http.asyncio.sleep", note)
        await ask(engine_for(server, name, Patience(attempts=2)))
    assert [wait for wait in waits if wait] == [pytest.approx(7.35, abs=0.35)]


@both
async def test_a_server_that_asks_for_a_long_wait_is_not_asked_again(name):
    error, made, _ = await failure_of(refusing(429, headers={"Retry-After": "3600"}), name)
    assert type(error) is EngineRateLimited
    assert made == 1


def test_retry_after_is_read_in_every_form():
    in_a_minute = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert retry_after_s({"retry-after": "3"}) == 3
    assert retry_after_s({"retry-after": "3", "retry-after-ms": "250"}) == 0.25
    assert retry_after_s({"retry-after": "-3"}) == 0
    assert retry_after_s({"retry-after": "2m59.5s"}) == 179.5
    assert retry_after_s({"retry-after": "370ms"}) == 0.37
    assert retry_after_s({"retry-after": in_a_minute}) == pytest.approx(60, abs=2)
    assert retry_after_s({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    for nonsense in ("", "soon", "nan", "inf"):
        assert retry_after_s({"retry-after": nonsense}) is None


@both
async def test_a_server_that_is_down_is_tried_again_and_told_with_its_address(name):
    with own_port() as port:
        url = f"http://user:PASSWORD@127.0.0.1:{port}/v1"
        engine = OllamaEngine(url, "m", patience=QUICK) if name == "ollama" else OpenAIEngine(url, "m", patience=QUICK)
        with pytest.raises(EngineUnavailable, match=f"no connection to http://127.0.0.1:{port}: ") as caught:
            await ask(engine)
    assert "PASSWORD" not in str(caught.value)


@both
async def test_a_server_that_comes_back_between_two_tries_is_found(name):
    with own_port() as port:
        server = ModelServer(Script(steps=(Step(text="ok"),)), port=port)
        engine = engine_for(server, name, Patience(attempts=20, wait_s=0.05))
        asking = asyncio.create_task(ask(engine))
        await asyncio.sleep(0.05)
        async with server:
            pieces, _ = await asking
    assert pieces == ["ok"]


@both
async def test_a_host_that_does_not_exist_is_told(name):
    url = "http://no-such-host.invalid/v1"
    patience = Patience(attempts=1)
    engine = ENGINES[name](url, "m", patience=patience)
    with pytest.raises(EngineUnavailable, match=r"no connection to http://no-such-host\.invalid"):
        await ask(engine)


@both
async def test_an_error_line_in_a_stream_that_began_with_200_is_an_error(name):
    step = Step(text="one two three four", error_after=HEAD[name] + 3)
    error, made, pieces = await failure_of(Script(steps=(step,)), name)
    assert type(error) is EngineBrokeOff
    with_status = "" if name == "ollama" else " with status 500"  # by its code or type, server_error
    assert f"broke off its answer{with_status} and says: the script says so" in str(error)
    assert made == 1
    assert pieces[:2] == ["one", " two"]


@both
async def test_an_error_line_that_may_pass_is_tried_again_only_before_the_first_piece(name):
    """OpenRouter answers 200 before it knows whether a provider will serve."""
    first = Step(text="one two three four", error_after=0, error_status=503)
    assert (await failure_of(Script(steps=(first,)), name))[1] == 3
    later = first.model_copy(update={"error_after": HEAD[name] + 3})
    error, made, pieces = await failure_of(Script(steps=(later,)), name)
    assert made == 1
    assert pieces
    assert type(error) is EngineBrokeOff
    assert f"status {500 if name in ('responses', 'anthropic') else 503}" in str(error)


@both
@pytest.mark.parametrize("status", [400, 429])
async def test_an_error_line_with_a_status_is_that_error(name, status):
    step = Step(text="one two", error_after=2, error_status=status)
    error, _, _ = await failure_of(Script(steps=(step,)), name)
    assert type(error) is {400: EngineRejected, 429: EngineRateLimited}[status]


@both
@pytest.mark.parametrize("cut_after", [0, 1, 3])
async def test_a_connection_that_is_cut_in_the_middle_is_an_error(name, cut_after):
    error, made, pieces = await failure_of(Script(steps=(Step(text="one two three", cut_after=cut_after),)), name)
    assert type(error) is EngineBrokeOff
    assert "broke in the middle of its answer" in str(error)
    assert made == (1 if pieces else 3), "what failed before anything was told is tried again"


@both
async def test_a_stream_that_ends_politely_but_too_early_is_an_error(name):
    """Half an answer must never pass for a whole one."""
    step = Step(text="one two three", omit=frozenset({"done", "finish"}))
    error, _, pieces = await failure_of(Script(steps=(step,)), name)
    assert type(error) is EngineBrokeOff
    assert "ended before the answer was complete" in str(error)
    assert pieces == ["one", " two", " three"]


@pytest.mark.long
@both
async def test_a_server_that_falls_silent_is_given_up(name):
    quick = Patience(attempts=3, wait_s=0.001, read_s=0.5)
    before, made, _ = await failure_of(Script(steps=(Step(delay_ms=2000),)), name, quick)
    assert type(before) is EngineUnavailable
    assert "within 0.5 s" in str(before)
    assert made == 1
    middle, _, pieces = await failure_of(Script(steps=(Step(text="one two", chunk_delay_ms=2000),)), name, quick)
    assert type(middle) is EngineBrokeOff
    assert "sent nothing for 0.5 s" in str(middle)
    assert pieces in (["one"], [])


@both
@pytest.mark.parametrize(
    "line",
    [
        "not json",
        "[1, 2]",
        '"text"',
        '{"message": 7, "choices": 7, "type": 7}',
        "[" * 100_000,
        '{"type": "response.output_text.delta", "delta": true, "choices": [{"delta": {"content": true}}]}',
    ],
)
async def test_a_payload_that_is_no_answer_is_an_error(name, line):
    if name == "ollama" and "delta" in line:
        line = '{"message": {"content": true}}'
    body, kind = (
        (f"{line}\n", "application/x-ndjson") if name == "ollama" else (f"data: {line}\n\n", "text/event-stream")
    )
    async with raw_server(response(body, kind)) as server:
        engine = ENGINES[name](server.url, "m", patience=QUICK)
        with pytest.raises(EngineProtocolError, match=r"sent what its protocol|before the answer was"):
            await ask(engine)
        assert len(server.bodies) == 3


@both
async def test_what_is_no_http_is_an_error(name):
    async with raw_server(b"SSH-2.0-OpenSSH_9.6\r\n") as server:
        engine = (
            OllamaEngine(server.url, "m", patience=QUICK)
            if name == "ollama"
            else OpenAIEngine(server.url, "m", patience=QUICK)
        )
        with pytest.raises(EngineUnavailable, match="broke before an answer: RemoteProtocolError"):
            await ask(engine)


@pytest.mark.long
@both
@pytest.mark.parametrize(
    ("body", "content_type", "told"),
    [
        ('{"error": "plain"}', "application/json", "says: plain"),
        ('{"error": {"message": "nested", "code": null}}', "application/json", "says: nested"),
        ('{"object": "error", "message": "of vLLM", "code": 400}', "application/json", "says: of vLLM"),
        ('{"detail": "of FastAPI"}', "application/json", "says: of FastAPI"),
        ('{"detail": [{"loc": ["body"]}]}', "application/json", "without saying why"),
        ("[]", "application/json", "without saying why"),
        (
            json.dumps({"error": {"message": "in front", "metadata": {"raw": '{"error": {"message": "behind"}}'}}}),
            "application/json",
            "says: in front; behind",
        ),
        ("just text\n", "text/plain", "says: just text"),
        ("<html><h1>Bad Gateway</h1></html>", "text/html", "without saying why"),
        ("", "text/plain", "without saying why"),
        ("\x1b[31mred\x1b[0m\nand\tmore", "text/plain", "says: [31mred [0m and more"),
        ("x" * 100_000, "text/plain", "says: " + "x" * 499 + "…"),
    ],
)
async def test_the_servers_words_are_told_in_whatever_form_and_cut(name, body, content_type, told):
    async with raw_server(response(body, content_type, "400 Bad Request")) as server:
        engine = ENGINES[name](server.url, "m")
        with pytest.raises(EngineRejected) as caught:
            await ask(engine, model="m")
    assert str(caught.value) == f"engine {engine.name}, model m: answered HTTP 400 and {told}".replace(
        "and without", "without"
    )


@both
async def test_a_redirect_is_not_followed_but_told(name):
    """The key and the conversation go where the settings say, and nowhere else."""
    error, _, _ = await failure_of(refusing(308, headers={"Location": "https://models.example/v1"}), name)
    assert type(error) is EngineRejected
    assert "answered HTTP 308 and says: look at https://models.example/v1" in str(error)


@pytest.mark.long
@both
async def test_an_error_body_without_an_end_is_not_waited_for(name):
    endless = [response("x" * 70_000, "text/plain", "400 Bad Request"), *[b""] * 60_000]
    async with raw_server(endless) as server, asyncio.timeout(30):
        engine = ENGINES[name](server.url, "m")
        with pytest.raises(EngineRejected, match="says: xxx"):
            await ask(engine)


async def test_a_key_never_appears_in_an_error_though_the_server_quotes_it():
    async with ModelServer(Script(api_key="right")) as server:
        engine = OpenAIEngine(server.openai_url, "m", api_key="sk-very-secret")
        with pytest.raises(EngineRejected) as caught:
            await ask(engine)
    assert caught.value.http_status == 401
    assert "says: Incorrect API key provided: ***." in str(caught.value)
    assert "secret" not in repr(caught.value.__dict__)


async def test_a_short_key_is_masked_as_a_word_and_not_inside_words():
    body = '{"error": "the key test is wrong in the latest contest"}'
    async with raw_server(response(body, "application/json", "400 Bad Request")) as server:
        with pytest.raises(EngineRejected, match=r"the key \*\*\* is wrong in the latest contest"):
            await ask(OpenAIEngine(server.url, "m", api_key="test", patience=QUICK))


async def test_a_key_that_no_header_can_hold_is_not_quoted_either():
    async with ModelServer(Script()) as server:
        engine = OpenAIEngine(server.openai_url, "m", api_key="sk-secret\n")
        with pytest.raises(EngineUnavailable, match="cannot be sent: LocalProtocolError") as caught:
            await ask(engine)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        ("400 Bad Request", {"error": {"message": "nope/x is not a valid model ID", "code": 400}}),
        ("404 Not Found", {"object": "error", "message": "The model `x` does not exist.", "code": 404}),
        ("404 Not Found", {"error": {"message": "No such thing", "code": "model_not_found"}}),
    ],
)
async def test_a_missing_model_is_known_in_the_words_of_other_servers(status, body):
    async with raw_server(response(json.dumps(body), "application/json", status)) as server:
        with pytest.raises(ModelNotFound):
            await ask(OpenAIEngine(server.url, "m"))


def test_words_for_a_message_are_one_printable_line():
    assert presentable("a\r\n b\x00c\u2028\ud800d") == "a b c d"
    assert len(presentable("x" * 10**7)) == 500
