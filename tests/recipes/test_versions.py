"""The client beside libraries of other years, in fresh environments."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from demo.script import Script, Step
from tests.e2e.conftest import make_pair

__all__ = ["make_pair"]

pytestmark = pytest.mark.recipes

WHEELS = Path(sys.prefix, "wheels")
PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
CALLS = 10

LEDGER = """
import importlib.util, sys
import google.protobuf
from onrecord.client import Ledger

assert google.protobuf.__version__ == sys.argv[2]
assert importlib.util.find_spec("grpc") is None
with Ledger(sys.argv[1], engine="alone") as ledger:
    for number in range(10):
        with ledger.tool_call("lookup", {"number": number}):
            pass
try:
    from onrecord.client import Gateway
except ImportError as error:
    print(error)
"""

GATEWAY = """
import asyncio, sys
import google.protobuf, grpc
from onrecord.client import AsyncGateway, AsyncLedger, Gateway, Ledger

state, gateway_address, audit_address, *versions = sys.argv[1:]
assert [google.protobuf.__version__, grpc.__version__] == versions
with Ledger(state, audit_address, engine="sent", drain_seconds=180) as ledger:
    for number in range(10):
        with ledger.tool_call("lookup", {"number": number}):
            pass
assert ledger.close()
with Gateway(gateway_address) as gateway:
    print(gateway.run("go").wait().answer)

gateway = AsyncGateway(gateway_address)
ledger = AsyncLedger(state, audit_address, engine="sent", drain_seconds=180)

async def turn():
    async with gateway:
        print((await gateway.run("go").wait()).answer)
    async with ledger:
        with ledger.tool_call("lookup"):
            pass
        assert await ledger.close()

for _ in range(2):
    asyncio.run(turn())
"""


def run(*command: object) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-3_000:]
    return done.stdout


@pytest.fixture
def wheel() -> Path:
    """Of the client, as it is published."""
    [found] = WHEELS.glob("onrecord_client-*.whl")
    return found


@pytest.mark.parametrize(
    ("protobuf", "grpcio", "apis"),
    [
        ("5.29.6", "1.68.1", "1.66.0"),
        ("6.33.6", "1.76.0", "1.72.0"),
        ("7.36.2", "1.85.3", "1.76.0"),
    ],
)
async def test_the_client_works_beside(make_pair, tmp_path, wheel, protobuf, grpcio, apis):
    """The newest protobuf of each line, a grpcio of two years ago; and protobuf alone, where no grpcio is installed."""
    python = tmp_path / "venv" / "bin" / "python"
    install = (*PIP, "--python", python, "install", "--no-compile", f"protobuf=={protobuf}")
    await asyncio.to_thread(run, sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    await asyncio.to_thread(run, *install, wheel)
    pair = await make_pair(Script(steps=(Step(text="Noon."),)))
    pair.start_audit()
    said = await asyncio.to_thread(run, python, "-I", "-W", "error", "-c", LEDGER, pair.state_dir, protobuf)
    assert said == "Gateway needs grpcio: pip install grpcio, or the extra `grpc` of onrecord-client\n"

    extra = (f"{wheel}[grpc]", f"grpcio=={grpcio}", f"googleapis-common-protos=={apis}")
    await asyncio.to_thread(run, *install, *extra)
    gateway = pair.start_gateway()  # it sends what the ledger appended to its folder
    told = (tmp_path / "app", gateway.address, pair.audit_address, protobuf, grpcio)
    assert await asyncio.to_thread(run, python, "-I", "-W", "error", "-c", GATEWAY, *told) == "Noon.\n" * 3
    async with asyncio.timeout(600):
        while len(pair.query("SELECT id FROM tool_call_log")) < 2 * CALLS + 2:
            await asyncio.sleep(0.05)
    rows = await pair.rows(2 * CALLS + 2)
    assert sorted(row.engine for row in rows) == ["alone"] * CALLS + ["sent"] * (CALLS + 2)
