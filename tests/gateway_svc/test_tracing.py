"""When traces are on, and what is said when they cannot be had."""

import subprocess
import sys

import pytest

from gateway_svc.errors import SettingsError
from gateway_svc.watching.tracing import open_tracing


@pytest.mark.long
def test_without_traces_nothing_of_opentelemetry_is_imported():
    code = "import sys, gateway_svc.server; sys.exit(any('opentelemetry' in name for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_traces_that_are_wanted_without_the_extra_are_refused_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)
    with pytest.raises(SettingsError, match="the extra `otel` is not installed"):
        open_tracing(wanted=True)


def test_a_collector_in_the_environment_without_the_extra_is_no_reason_not_to_start(monkeypatch):
    """Operators of clusters put OTEL_… into every container."""
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    assert open_tracing(wanted=None) is None


@pytest.mark.parametrize(("name", "value"), [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")])
def test_the_standard_variables_turn_traces_off(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert open_tracing(wanted=True) is None


def test_a_protocol_that_is_not_spoken_is_refused(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    with pytest.raises(SettingsError, match="only grpc"):
        open_tracing(wanted=True)
