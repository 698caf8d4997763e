"""The audit logger is built once where an HTTP engine is configured, and not even imported where none is (R14)."""

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from gateway_svc.assembly import assemble, open_audited
from gateway_svc.gateway import Audited
from gateway_svc.loop.answers import Answers
from gateway_svc.settings import GatewaySettings
from recording import redact
from recording.delivery.connection import open_target
from tests.support.certificates import Authority

ONLY_CLAUDE = """
import asyncio, os, re, signal, sys
from gateway_svc.server import serve
from gateway_svc.settings import GatewaySettings
async def end():
    while signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        await asyncio.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)
async def main():
    ending = asyncio.create_task(end())
    await serve(GatewaySettings())
asyncio.run(main())
others = "channel|calls|compact_json|controls|durations|framing|key_file|locks|log$|replacing|show|upkeep"
print(sorted(name for name in sys.modules if re.match(f"recording.(?!{others})", name)))
"""


def settings(monkeypatch, tmp_path, **env: str) -> GatewaySettings:
    for name, value in {"GATEWAY_STATE_DIR": str(tmp_path), "GATEWAY_BASH_SANDBOX": "off_as_root", **env}.items():
        monkeypatch.setenv(name, value)
    chosen = GatewaySettings()
    chosen.workspace.mkdir(parents=True, exist_ok=True)
    return chosen


@asynccontextmanager
async def opened(configured: GatewaySettings) -> AsyncIterator[Audited]:
    audited = open_audited(configured, Answers(1))
    try:
        yield audited
    finally:
        for agent in audited.agents:
            await agent.aclose()
        await audited.record.aclose()


async def test_both_http_engines_share_one_logger(monkeypatch, tmp_path):
    configured = settings(
        monkeypatch,
        tmp_path,
        GATEWAY_OLLAMA_URL="http://127.0.0.1:9",
        GATEWAY_OLLAMA_MODEL="m",
        GATEWAY_OPENAI_URL="http://127.0.0.1:9/v1",
        GATEWAY_OPENAI_MODEL="m",
    )
    async with opened(configured) as audited:
        ollama, openai = audited.agents
        assert (ollama.name, openai.name) == ("ollama", "openai")
        assert ollama._logger is openai._logger is audited.record.logger


async def test_rules_that_cannot_be_used_are_told_of_by_health_and_an_engine_that_asks_none_at_the_start(
    monkeypatch, tmp_path
):
    path = tmp_path / "rules.toml"
    path.write_text('[[rules]]\nname = "a"\nverdict = "deny"\n')
    configured = settings(
        monkeypatch,
        tmp_path / "state",
        GATEWAY_OLLAMA_URL="http://127.0.0.1:9",
        GATEWAY_OLLAMA_MODEL="m",
        GATEWAY_CLAUDE_COMMAND="claude",
        GATEWAY_RULES_FILE=str(path),
    )
    with capture_logs() as logged:
        gateway = assemble(configured, CollectorRegistry())
    assert [line["engine"] for line in logged if line["event"] == "rules.not_asked"] == ["claude"]
    try:
        assert "rules" not in await gateway.detail()
        path.write_text("[[rules]]\nname = 1\n")
        detail = await gateway.detail()
        assert "earlier rules are in force: " in detail
        assert "rule 1" in detail
    finally:
        for runner in gateway.runners.values():
            await runner.aclose()
        assert gateway.audited
        await gateway.audited.record.aclose()
        gateway.turns.close()
        gateway.run.close()


@pytest.mark.parametrize(
    ("target", "ca", "warnings"),
    [("audit.example:1", False, 1), ("audit.example:1", True, 0), ("127.0.0.1:9", False, 0), ("unix:/none", False, 0)],
)
async def test_a_token_that_would_cross_the_network_in_plain_text_is_warned_about(
    monkeypatch, tmp_path, target, ca, warnings
):
    token, engine = tmp_path / "token", {"GATEWAY_OLLAMA_URL": "http://127.0.0.1:9", "GATEWAY_OLLAMA_MODEL": "m"}
    token.write_text("secret")
    tls = {"GATEWAY_AUDIT_TLS_CA": str(Authority(tmp_path).path)} if ca else {}
    audit = {"GATEWAY_AUDIT_TARGET": target, "GATEWAY_AUDIT_TOKEN_FILE": str(token), **tls}
    configured = settings(monkeypatch, tmp_path / "state", **engine, **audit)
    with capture_logs() as logged:
        async with opened(configured):
            pass
    assert [line["event"] for line in logged].count("audit.token_in_plain_text") == warnings


@pytest.mark.parametrize(("mode", "warnings"), [(0o600, 0), (0o640, 0), (0o444, 1)])
async def test_a_token_that_every_user_can_read_is_warned_about(monkeypatch, tmp_path, mode, warnings):
    (tmp_path / "token").write_text("secret")
    (tmp_path / "token").chmod(mode)
    engine = {"GATEWAY_OLLAMA_URL": "http://127.0.0.1:9", "GATEWAY_OLLAMA_MODEL": "m"}
    token = {"GATEWAY_AUDIT_TOKEN_FILE": str(tmp_path / "token")}
    configured = settings(monkeypatch, tmp_path / "state", **engine, **token)
    with capture_logs() as logged:
        async with opened(configured):
            pass
    assert [line["event"] for line in logged].count("files.readable_by_all") == warnings


@pytest.mark.parametrize("audit", ["off", pytest.param("on", marks=pytest.mark.long)])
def test_a_deployment_with_only_claude_loads_the_record_only_when_it_is_audited(tmp_path, audit):
    env = {
        "PATH": "/usr/bin:/bin",
        "GATEWAY_CLAUDE_COMMAND": "claude",
        "GATEWAY_AUDIT_CLAUDE": audit,
        "GATEWAY_LISTEN": "127.0.0.1:0",
        "GATEWAY_STATE_DIR": str(tmp_path),
    }
    ran = subprocess.run([sys.executable, "-c", ONLY_CLAUDE], env=env, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert (ran.stdout.splitlines()[-1] == "[]") is (audit == "off")


async def test_the_gateways_own_key_is_kept_off_the_record(monkeypatch, tmp_path):
    key = "plain-words-that-no-pattern-knows"
    configured = settings(
        monkeypatch,
        tmp_path,
        GATEWAY_OPENAI_URL="http://127.0.0.1:9/v1",
        GATEWAY_OPENAI_MODEL="m",
        OPENAI_API_KEY=key,
    )
    async with opened(configured):
        pass
    assert key not in redact.redact_text(f"the server said {key} is wrong")


def test_the_token_for_the_audit_service_is_kept_off_the_record_and_the_next_one_too(tmp_path):
    first, second, file = "first-words-that-no-pattern-knows", "other-words-that-no-pattern-knows", tmp_path / "token"
    file.write_text(first)
    target = open_target("127.0.0.1:9", None, file, "")
    assert first not in redact.redact_text(f"a file said {first}")
    file.write_text(second + "\n")
    assert target.metadata() == (("authorization", f"Bearer {second}"),)
    assert second not in redact.redact_text(f"a file said {second}")
