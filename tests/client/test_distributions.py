"""The two distributions, built as they are published: no file stands in both, and the client's needs no service."""

import asyncio
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from onrecord.audit.v1 import audit_pb2

from demo.processes import REPOSITORY
from tests.recording.fake_audit import FakeAudit, serving

PROGRAM = """
import importlib.util, json, sys
from recording.channel import options
from onrecord.client import Gateway, Ledger

with Ledger(state_dir=sys.argv[1], target=sys.argv[2], drain_seconds=20) as ledger:
    with ledger.tool_call("lookup", {"city": "Kiel"}) as call:
        call.result_bytes = 7
Gateway().close()
names = ("gateway_svc", "audit_svc", "service_kit", "apsw", "httpx2", "pydantic")
assert "retryPolicy" in dict(options.CLIENT_OPTIONS)["grpc.service_config"]
print(json.dumps([name for name in names if importlib.util.find_spec(name)]))
"""


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
    return done.stdout


def test_the_two_versions_agree():
    whole, client = (
        tomllib.loads((REPOSITORY / folder / "pyproject.toml").read_text())["project"]
        for folder in (".", "clients/python")
    )
    assert f"onrecord-client[grpc]=={client['version']}" in whole["dependencies"]
    assert whole["version"] == client["version"]


def test_the_generated_half_of_the_client_blocks_and_is_current():
    generate = REPOSITORY / "clients/python/generate.py"
    run(sys.executable, generate, "--check", cwd=REPOSITORY)
    for path in (REPOSITORY / "clients/python/lib/onrecord/client/sync").glob("*.py"):
        assert not re.search(
            r"\b(async|await|aio|Async\w+|asyncio)\b", path.read_text().replace("onrecord.client.aio", "")
        )


@pytest.mark.long
async def test_the_client_s_wheel_alone_records_a_call(tmp_path):
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    await asyncio.to_thread(
        run,
        *pip,
        "wheel",
        "--no-deps",
        "--wheel-dir",
        tmp_path,
        REPOSITORY / "clients/python",
        REPOSITORY,
        cwd=tmp_path,
    )
    (client,), (whole,) = (list(tmp_path.glob(f"{name}-0*.whl")) for name in ("onrecord_client", "onrecord"))
    carried, installed = (set(zipfile.ZipFile(wheel).namelist()) for wheel in (client, whole))
    assert not carried & installed
    assert {name.split("/")[0] for name in carried} == {
        "onrecord",
        "recording",
        f"{client.name.split('-py3')[0]}.dist-info",
    }
    for wanted in ("onrecord/client/py.typed", "recording/redact/patterns.toml", "onrecord/audit/v1/audit_pb2.pyi"):
        assert wanted in carried
    policy = "onrecord/service_config.json"
    assert zipfile.ZipFile(client).read(policy) == (REPOSITORY / "protos" / policy).read_bytes()

    venv = tmp_path / "venv"
    await asyncio.to_thread(run, sys.executable, "-m", "venv", "--without-pip", venv, cwd=tmp_path)
    python = venv / "bin/python"
    install = ("--python", python, "install", "-c", REPOSITORY / "constraints.txt", f"{client}[grpc]")
    await asyncio.to_thread(run, *pip, *install, cwd=tmp_path)
    service = FakeAudit()
    async with serving(service) as target:
        arguments = (python, "-I", "-c", PROGRAM, tmp_path / "state", target.address)
        told = await asyncio.to_thread(run, *arguments, cwd=tmp_path)
    assert json.loads(told) == []
    (row,) = service.ledger.values()
    assert isinstance(row, audit_pb2.AuditRow)
    assert (row.tool_name, row.result_bytes) == ("lookup", 7)
