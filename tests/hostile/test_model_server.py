"""A model server that means harm ends its own turn, by a bound that has a name; turns on another one go on."""

import asyncio
import re
import ssl
import time
from typing import Any

import grpc
import pytest
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2_grpc

from demo.model_server import ModelServer
from demo.processes import Service
from demo.script import Script, Step
from gateway_svc.engines import Engine
from gateway_svc.engines.anthropic.messages import AnthropicEngine
from gateway_svc.engines.kinds import engine_kinds
from gateway_svc.engines.ollama import OllamaEngine
from gateway_svc.engines.openai.chat import OpenAIEngine
from gateway_svc.engines.openai.responses import ResponsesEngine
from gateway_svc.engines.wire.patience import Patience
from gateway_svc.errors import EngineError, EngineUnavailable, failure_of
from gateway_svc.watching.readiness import EngineCheck
from tests.engines.asking import ask
from tests.hostile.conftest import Start
from tests.hostile.held import GROWTH, WATCHED, forget_peak, memory
from tests.hostile.house import end_of, honest_turns
from tests.hostile.model_attacks import FORMS, ModelAttacks
from tests.support.certificates import Authority
from tests.support.listening import listening

pytestmark = [pytest.mark.hostile, pytest.mark.timeout(300)]

SHORT = ("chat", "anthropic")
"""The forms that have all kinds of attacks between them."""
COMPLETED, FAILED = "COMPLETED", "INTERNAL"
PARTS = (FAILED, "2,048 parts in one answer")
BACK = (FAILED, "characters of reasoning and items that are to go back")
REREAD = (FAILED, "256 tool calls|read again")
ENDS: dict[str, dict[str, tuple[str, str]]] = {
    "reasoning": {"": (COMPLETED, ""), "anthropic": BACK},
    "text": {"": (FAILED, "4,194,304 characters of text in one answer")},
    "arguments": {"": (FAILED, "8,388,608 characters of arguments in one answer")},
    "calls": {"": (FAILED, "256 tool calls in one answer"), "anthropic": PARTS},
    "fragments": {"chat": (COMPLETED, "")},
    "whole fragments": {"chat": REREAD},
    "fragments at once": {"chat": (FAILED, "512 fragments of tool calls in one event")},
    "values": {"": (FAILED, "250,000 values in one piece of JSON")},
    "values of arguments": {"": (COMPLETED, "")},
    "fields of arguments": {"": (COMPLETED, "")},
    "small chunks": {"": (FAILED, "250,000 pieces in one response")},
    "informational": {"": ("UNAVAILABLE", "before an answer")},
    "trailers": {"": (COMPLETED, "")},
    "a large head": {"": ("UNAVAILABLE", "before an answer")},
    "behind the end": {"": (COMPLETED, "")},
    "gzip": {"": (FAILED, "268,435,456 bytes in one response")},
    "an absurd wait": {"": ("UNAVAILABLE", "503")},
}
"""How a turn ends, by the form of the server where that matters."""


def engine_of(form: str, url: str) -> Engine:
    patience = Patience(attempts=1)
    match form:
        case "ollama":
            return OllamaEngine(url, "m", patience=patience)
        case "chat":
            return OpenAIEngine(url, "m", patience=patience)
        case "responses":
            return ResponsesEngine(url, "m", patience=patience)
        case _:
            return AnthropicEngine(url, "m", patience=patience)


def test_every_engine_has_cases():
    """Claude's program has test_claude.py; OpenAI's API has two forms."""
    tested = {"openai" if form in ("chat", "responses") else form for form in FORMS} | {"claude"}
    assert tested == {kind.name for kind in engine_kinds()}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("attack", "bounds"),
    [
        ("text", {"answer_text"}),
        ("arguments", {"answer_arguments"}),
        ("calls", {"answer_calls", "answer_parts"}),
        ("values", {"json_values"}),
        ("gzip", {"response_bytes"}),
        ("small chunks", {"response_pieces"}),
    ],
)
async def test_the_record_says_which_bound_was_met(form, attack, bounds):
    async with ModelAttacks() as server:
        with pytest.raises(EngineError) as caught:
            await ask(engine_of(form, server.url), model=attack)
        assert server.requests == 1, "it is not asked again"
    failure = failure_of(caught.value)
    assert failure.code.removeprefix("over_") in bounds


async def stand(service: Service, stub: Any, engine: str, attack: str, expected: tuple[str, str]) -> None:
    """Makes one attack, which must end as expected."""
    before = forget_peak(service)
    ending = await end_of(stub, input="go", engine=engine, model=attack)
    assert ending.end == expected[0], f"{attack}: {ending.told}"
    assert re.search(expected[1], ending.told), f"{attack}: {ending.told}"
    if attack.endswith("of arguments"):
        assert ending.outcomes == [common_pb2.OUTCOME_INVALID_CALL], attack
    assert memory(service, "VmHWM") - before < GROWTH, attack


@pytest.mark.parametrize(
    "form", [form if form in SHORT else pytest.param(form, marks=pytest.mark.long) for form in FORMS]
)
async def test_each_attack_ends_its_own_turn_and_nobody_else_feels_it(start: Start, form: str):
    async with ModelAttacks() as server, ModelServer(Script(steps=(Step(text="done", repeat=1000),))) as model:
        name, other = ("openai", "ollama") if form in ("chat", "responses") else (form, "openai")
        hostile = {
            f"GATEWAY_{name.upper()}_URL": server.url,
            f"GATEWAY_{name.upper()}_MODEL": "m",
            **({"GATEWAY_OPENAI_API": form} if name == "openai" else {}),
        }
        kind = {"GATEWAY_OPENAI_URL": model.openai_url, "GATEWAY_OPENAI_MODEL": "m", "GATEWAY_OPENAI_API": "chat"}
        friendly = kind if other == "openai" else {"GATEWAY_OLLAMA_URL": model.ollama_url}
        service: Service = await asyncio.to_thread(start, "gateway_svc", **{**hostile, **friendly})
        async with grpc.aio.insecure_channel(service.address) as channel:
            stub, watched = gateway_pb2_grpc.GatewayServiceStub(channel), WATCHED[service.pid]
            ends: list[str] = []

            async def another_turn() -> str:
                return (await end_of(stub, input="go", engine=other)).end

            async with honest_turns(service, another_turn, ends):
                for attack, by_form in ENDS.items():
                    if expected := by_form.get(form, by_form.get("")):  # else the form has no such thing
                        began = time.monotonic()
                        await stand(service, stub, name, attack, expected)
                        watched.cases.append((attack, began, time.monotonic()))
            assert set(ends) == {COMPLETED}
            assert await asyncio.to_thread(watched.wrong) == []


async def test_a_server_that_asks_for_a_certificate_of_its_client_is_told_as_away(tmp_path, monkeypatch):
    """In TLS 1.3 it refuses behind the handshake, by an error that httpx2 does not translate."""
    authority = Authority(tmp_path)
    pair = authority.server()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(pair.certificate, pair.key)
    context.load_verify_locations(authority.path)
    context.verify_mode = ssl.CERT_REQUIRED
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Tells why it refuses, and leaves the connection open: a reset would be another error."""
        coming, going = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls, refused = context.wrap_bio(coming, going, server_side=True), False
        while data := await reader.read(65_536):
            coming.write(data)
            try:
                if not refused:
                    tls.do_handshake()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                refused = True
            writer.write(going.read())

    async with listening(serve) as port:
        url = f"https://localhost:{port}"
        for form in FORMS:
            with pytest.raises(EngineUnavailable, match="broke before an answer"):
                await ask(engine_of(form, url), model="m")
        async with EngineCheck({}) as check:
            assert await check._ask(url)
