"""What the environment says of connections to model servers and pages, looked at before the gateway listens: an own CA
(SSL_CERT_FILE, SSL_CERT_DIR) and proxies.
"""

from pathlib import Path

import pytest

from gateway_svc.errors import SettingsError
from gateway_svc.http_client import check_proxies, check_trusted
from tests.support.certificates import Authority
from tests.support.forked import run_command


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SSL_CERT_FILE", "none"),
        ("SSL_CERT_FILE", "."),
        ("SSL_CERT_FILE", "text"),
        ("SSL_CERT_FILE", "empty"),
        ("SSL_CERT_DIR", "none"),
        ("SSL_CERT_DIR", "text"),
    ],
)
def test_what_cannot_be_trusted_is_refused_by_the_variables_name(tmp_path: Path, monkeypatch, variable, value):
    (tmp_path / "text").write_text("no certificate")
    (tmp_path / "empty").touch()
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    monkeypatch.setenv(variable, str(tmp_path / value))
    with pytest.raises(SettingsError, match=f"^{variable}: .*{value}"):
        check_trusted()


def test_a_ca_and_a_folder_of_them_pass(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(Authority(tmp_path).path))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    check_trusted()


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("ALL_PROXY", "socks5://ada:hunter22@proxy.example:1080", "is not an HTTP proxy"),
        ("all_proxy", "socks4://proxy.example:1080", "is not an HTTP proxy"),
        ("HTTP_PROXY", "http://ada:hunter22@proxy.example:port", "is not a URL"),
        ("http_proxy", "http://ada:hun/ter22@proxy.example", "is not a URL"),
        ("HTTPS_PROXY", "http://[::1", "is not a URL"),
        ("https_proxy", "http://", "names no host and port"),
        ("HTTPS_PROXY", "proxy.example:70000", "names no host and port"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_refused_by_the_variables_name(no_proxies, variable, value, reason):
    no_proxies.setenv(variable, value)
    with pytest.raises(SettingsError, match=f"^{variable}: .* {reason}.*: give http://host:port") as refused:
        check_proxies()
    assert "hun" not in str(refused.value)


def test_proxies_for_the_web_pass(no_proxies):
    no_proxies.setenv("HTTP_PROXY", "proxy.example:3128")
    no_proxies.setenv("https_proxy", "https://ada:hunter22@[2001:db8::1]:3128")
    no_proxies.setenv("FTP_PROXY", "ftp://proxy.example")  # not one of ours
    check_proxies()


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.long)])
def test_a_gateway_whose_model_server_is_behind_such_a_proxy_does_not_start(tmp_path: Path, workers):
    env = {
        "GATEWAY_OPENAI_URL": "http://model.example/v1",
        "GATEWAY_OPENAI_MODEL": "m",
        "GATEWAY_STATE_DIR": str(tmp_path),
        "GATEWAY_LISTEN": "127.0.0.1:0",
        "ALL_PROXY": "socks5://proxy.example:1080",
    }
    ran = run_command("gateway_svc", env, "serve", "--workers", workers)
    assert ran.returncode == 2
    assert "ALL_PROXY: 'socks5://proxy.example:1080' is not an HTTP proxy" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.fixture
def no_proxies(monkeypatch):
    for kind in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{kind}_proxy", raising=False)
        monkeypatch.delenv(f"{kind.upper()}_PROXY", raising=False)
    return monkeypatch
