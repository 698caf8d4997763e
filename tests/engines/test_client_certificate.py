"""A model server that asks for a client certificate is shown the one that the settings name."""

import ssl
from pathlib import Path
from typing import Any

import pytest

from demo.model_server import ModelServer
from demo.script import Script, Step
from gateway_svc.engines.kinds import EngineKind, HttpEngineSettings, engine_kinds
from gateway_svc.engines.ollama import OllamaEngine
from gateway_svc.errors import EngineUnavailable, SettingsError
from gateway_svc.http_client import name_of
from gateway_svc.watching.readiness import EngineCheck
from service_kit.settings import load_settings
from tests.engines.asking import QUICK, ask, ask_again
from tests.support.certificates import Authority, Pair
from tests.support.tls_door import tls_door

KINDS = [kind for kind in engine_kinds() if isinstance(kind, EngineKind)]
SCRIPT = Script(steps=(Step(text="done", repeat=100),))
FORMS = [pytest.param(kind, {}, id=kind.name) for kind in KINDS]
FORMS += [pytest.param(kind, {"api": "responses"}, id="responses") for kind in KINDS if kind.name == "openai"]


def settings_of(kind: EngineKind[HttpEngineSettings], url: str, pair: Pair | None, **more: Any) -> HttpEngineSettings:
    files: dict[str, Any] = {"client_cert": pair.certificate, "client_key": pair.key} if pair else {}
    path = "/v1" if kind.name == "openai" else ""
    return kind.settings(url=url + path, model="scripted", **files, **more)


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """The CA of both sides."""
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    return authority


@pytest.mark.parametrize(("kind", "more"), FORMS)
async def test_every_engine_and_its_readiness_show_the_certificate(authority, kind, more):
    async with ModelServer(SCRIPT) as model, tls_door(authority, model.url) as door:
        settings = settings_of(kind, door.url, authority.issue("gateway"), **more)
        assert (await ask(kind.build(settings)))[1].message.text == "done"
        async with EngineCheck({kind.name: settings}) as check:
            assert await check() == ""
        assert door.shown == ["gateway", "gateway"]


@pytest.mark.parametrize("shown", [None, "stranger"])
async def test_without_a_certificate_that_is_trusted_the_server_counts_as_away(authority, tmp_path, shown):
    async with ModelServer(SCRIPT) as model, tls_door(authority, model.url) as door:
        pair = Authority(tmp_path, "other").issue(shown) if shown else None
        settings = settings_of(KINDS[0], door.url, pair)
        with pytest.raises(EngineUnavailable, match="the connection to https://localhost:"):
            await ask(OllamaEngine(door.url, "scripted", patience=QUICK, tls=settings.tls))
        async with EngineCheck({"it": settings}) as check:
            assert (await check()).startswith("it: ")
            assert (await check()).startswith("it: ")
        assert not door.shown


async def test_a_certificate_that_is_replaced_is_shown_by_the_next_connection(authority):
    """A pair that does not belong together in between changes nothing."""
    async with ModelServer(SCRIPT) as model, tls_door(authority, model.url) as door:
        pair = authority.issue("old", file="pair")
        settings = settings_of(KINDS[0], door.url, pair)
        engine = KINDS[0].build(settings)
        async with EngineCheck({"it": settings}) as check:
            await ask_again(engine)
            new = authority.issue("new")
            pair.certificate.write_bytes(new.certificate.read_bytes())
            assert await check() == ""
            pair.key.write_bytes(new.key.read_bytes())
            await ask(KINDS[0].build(settings))
            assert await check() == ""
        await engine.aclose()
        assert door.shown == ["old", "old", "new", "new"]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_key_of_another_certificate_is_refused_by_its_variables_name(kind, authority):
    pair, other = authority.issue("gateway"), authority.issue("other")
    settings = settings_of(kind, "https://h", Pair(pair.certificate, other.key))
    with pytest.raises(SettingsError, match=f"^GATEWAY_{kind.name.upper()}_CLIENT_KEY: .* is not the key of "):
        kind.build(settings)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize(
    ("url", "given", "said"),
    [
        ("https://h", "cert", "{}_CLIENT_KEY: is not set, but {}_CLIENT_CERT is: give both"),
        ("https://h", "key", "{}_CLIENT_CERT: is not set, but {}_CLIENT_KEY is: give both"),
        ("http://h", "cert key", "{}_CLIENT_CERT: {}_URL is not https, and without TLS no certificate is shown"),
    ],
)
def test_half_a_pair_and_a_pair_without_tls_are_refused(kind, authority, monkeypatch, capsys, url, given, said):
    prefix, pair = f"GATEWAY_{kind.name.upper()}", authority.issue("gateway")
    monkeypatch.setenv(f"{prefix}_URL", url)
    monkeypatch.setenv(f"{prefix}_MODEL", "m")
    for part in given.split():
        path = pair.certificate if part == "cert" else pair.key
        monkeypatch.setenv(f"{prefix}_CLIENT_{part.upper()}", str(path))
    with pytest.raises(SystemExit) as ended:
        load_settings(kind.settings)
    assert (ended.value.code, capsys.readouterr().err) == (2, said.format(prefix, prefix) + "\n")


def test_an_error_of_tls_is_told_by_its_name_and_no_words_of_the_server():
    inner = ssl.SSLError(1, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] words")
    inner.reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED"
    outer = OSError("words")
    outer.__cause__ = inner
    assert name_of(outer) == "OSError (TLSV13_ALERT_CERTIFICATE_REQUIRED: it asks for a client certificate)"
    assert name_of(ConnectionResetError("words")) == "ConnectionResetError"
