"""Which requests go through a proxy that the environment names."""

import pytest

from demo.model_server import ModelServer
from demo.script import Script, Step
from gateway_svc.engines.openai.chat import OpenAIEngine
from gateway_svc.errors import EngineUnavailable
from tests.engines.asking import QUICK, ask, events, raw_server

ANSWER = events({"choices": [{"delta": {"content": "through the proxy"}, "finish_reason": "stop"}]})


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine may have one."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def test_a_model_server_elsewhere_is_reached_through_the_proxy(monkeypatch):
    async with raw_server(ANSWER) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        pieces, _ = await ask(OpenAIEngine("http://models.invalid/v1", "m", patience=QUICK))
    assert pieces == ["through the proxy"]
    assert proxy.heads[0].startswith("POST http://models.invalid/v1/chat/completions HTTP/1.1")


async def test_a_proxy_that_is_away_is_named_with_its_variable_and_without_its_password(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "http://ada:geheim@127.0.0.1:1")
    engine = OpenAIEngine("http://models.invalid/v1", "m", patience=QUICK)
    with pytest.raises(EngineUnavailable) as failed:
        await ask(engine)
    assert "no connection to http://models.invalid by the proxy http://***@127.0.0.1:1 (ALL_PROXY): " in str(
        failed.value
    )
    monkeypatch.setenv("NO_PROXY", "models.invalid")
    with pytest.raises(EngineUnavailable) as failed:
        await ask(OpenAIEngine("http://models.invalid/v1", "m", patience=QUICK))
    assert "proxy" not in str(failed.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_model_server_on_this_machine_is_not(monkeypatch, host):
    """A proxy's own loopback is another machine's."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with ModelServer(Script(steps=(Step(text="direct"),))) as server:
        pieces, _ = await ask(OpenAIEngine(server.openai_url.replace("127.0.0.1", host), "m", patience=QUICK))
    assert pieces == ["direct"]
