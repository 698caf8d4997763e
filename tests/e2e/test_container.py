"""Services as the first process of a container, made by a PID namespace."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.processes import REPOSITORY, Service
from demo.script import Call, Script, Step
from tests.e2e.conftest import run_turn
from tests.support.processes import children_of

CONTAINER = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
ORPHANS = "for n in 1 2 3; do setsid -f true; done"

pytestmark = pytest.mark.skipif(
    subprocess.run([*CONTAINER, "true"], check=False, capture_output=True).returncode != 0,
    reason="namespaces are not allowed here",
)


@contextmanager
def contain(module: str, env: Mapping[str, str]) -> Iterator[tuple[Service, int]]:
    """A service, and the number by which this test knows its container's first process."""
    stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the service
    path = f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'protos'}"
    command = [*CONTAINER, sys.executable, "-m", module, "serve"]
    process = subprocess.Popen(
        command, env={"PATH": os.environ["PATH"], "PYTHONPATH": path, **env}, cwd=REPOSITORY, stderr=stderr
    )
    with Service(process, stderr) as service:
        service.wait_until_listening()
        (first,) = children_of(process.pid)
        yield service, first


def is_dead(pid: int) -> bool:
    """Whether it has ended and nobody has buried it."""
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.long
async def test_nothing_dead_is_left_and_a_second_signal_ends_the_gateway_at_once(make_pair):
    orphans, endless = (Call(name="bash", arguments={"command": command}) for command in (ORPHANS, "sleep 300"))
    pair = await make_pair(Script(steps=(Step(tool_calls=(orphans,)), Step(tool_calls=(endless,))), check=False))
    env = pair.gateway_env({"GATEWAY_BASH_SANDBOX": "off_as_root", "GATEWAY_DRAIN_SECONDS": "100"})
    with contain("gateway_svc", env) as (service, first):
        gateway = await pair.gateway(service)
        turn = gateway.RunTurn(pb.RunTurnRequest(input="go"))
        started = 0
        async for event in turn:
            started += event.HasField("tool_call_started")
            if started == 2:
                break
        async with asyncio.timeout(30):
            while any(is_dead(child) for child in children_of(first)):
                await asyncio.sleep(0.05)
        os.kill(first, signal.SIGTERM)
        while "turns.draining" not in service.stderr_text():
            await asyncio.sleep(0.01)
        os.kill(first, signal.SIGTERM)
        assert await asyncio.to_thread(service.process.wait, 30) == 128 + signal.SIGTERM


@pytest.mark.long
async def test_the_first_process_ends_with_the_exit_code_of_the_service_and_a_terminal_signals_it_alone(make_pair):
    pair = await make_pair(Script(steps=(Step(text="done"),)))
    audit = {"AUDIT_LISTEN": "127.0.0.1:0", "AUDIT_DB": str(pair.db)}
    for module, env in (("audit_svc", audit), ("gateway_svc", pair.gateway_env({}))):
        with contain(module, env) as (service, first):
            (child,) = children_of(first)
            assert os.getpgid(child) == child, "in the group of the first, it would get ^C twice"
            if module == "gateway_svc":
                await run_turn(await pair.gateway(service))
            os.kill(first, signal.SIGTERM)
            assert await asyncio.to_thread(service.process.wait, 30) == 0
