"""OpenTelemetry's SDK of JavaScript exports with its default settings; that of Python does in tests/intake_svc."""

import os
import subprocess

import pytest

from tests.agents.agents import PROGRAMS
from tests.agents.install import FOLDER, chosen
from tests.intake_svc.conftest import open_house, wait_for

NAME = "opentelemetry-js"
pytestmark = [pytest.mark.agents, pytest.mark.skipif(NAME not in chosen(), reason=f"{NAME} is not among AGENTS")]


def test_the_official_sdk_of_javascript_exports_with_its_default_settings(tmp_path):
    with open_house(tmp_path) as house:
        house.start_audit()
        door = house.start_door()
        by = {"http/protobuf": door.http, "grpc": door.grpc}
        for protocol, address in by.items():
            export(protocol, address)
        wait_for(lambda: len(house.rows()) == len(by))
        assert {(row["session_id"], row["tool_name"]) for row in house.rows()} == {(each, "search") for each in by}


def export(protocol: str, address: str) -> None:
    """Makes one call; http/protobuf is the default, and is not told."""
    env = {"PATH": os.environ["PATH"], "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{address}"}
    if protocol != "http/protobuf":
        env["OTEL_EXPORTER_OTLP_PROTOCOL"] = protocol
    command = ["node", str(PROGRAMS / "export.mjs"), str(FOLDER / NAME), protocol]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
