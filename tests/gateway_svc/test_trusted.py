"""An own CA for model servers and pages: SSL_CERT_FILE and SSL_CERT_DIR, looked at before the gateway listens."""

from pathlib import Path

import pytest

from gateway_svc.errors import SettingsError
from gateway_svc.http_client import check_trusted
from tests.support.certificates import Authority


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
