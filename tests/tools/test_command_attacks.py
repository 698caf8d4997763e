"""No command reads, reaches, changes or outlives what it must not."""

import os
import platform
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway_svc.tools.bash import BashLimits, BashTool, _own_tasks
from gateway_svc.tools.jail import confine, processes
from gateway_svc.tools.jail.bubblewrap import Bubblewrap
from gateway_svc.tools.jail.cgroups import find_process_groups
from gateway_svc.tools.jail.landlock import Landlock
from gateway_svc.tools.jail.sandbox import Sandbox, find_sandbox
from gateway_svc.tools.jail.seccomp import ARCHITECTURES
from tests.tools.attack_commands import ATTACKS, Attack
from tests.tools.minefield import SECRET, surroundings
from tests.tools.running import run

KEY = "sk-canary-91c4"
LIMITS = BashLimits(max_memory_bytes=128 * 1024**2, max_processes=64, max_file_bytes=4 * 1024**2)
BWRAP_HELP = (
    subprocess.run(["bwrap", "--help"], capture_output=True, check=False).stdout if shutil.which("bwrap") else b""
)
DOCS = Path(__file__).parents[2] / "docs" / "security.md"


@dataclass
class World:
    """What a command meets, and what must be as it was when it has ended."""

    workspace: Path
    victim: subprocess.Popen[bytes]
    victim_name: str
    listeners: list[socket.socket]
    nap: str
    """A number that every process that an attack leaves behind has on its command line."""

    def fill(self, command: str) -> str:
        tcp, unix, abstract = (listener.getsockname() for listener in self.listeners)
        outside = self.workspace.parent
        return command.format(
            workspace=self.workspace,
            outside=outside,
            state=outside / "state",
            victim=self.victim.pid,
            victim_name=self.victim_name,
            gateway=os.getpid(),
            port=tcp[1],
            socket=unix,
            abstract=abstract[1:].decode(),
            nap=self.nap,
            enough=LIMITS.max_processes + _own_tasks() + 200,
            keyctl={"x86_64": 250, "aarch64": 219}.get(platform.machine(), 0),
            ptrace={"x86_64": 101, "aarch64": 117}.get(platform.machine(), 0),
            process_vm_writev={"x86_64": 311, "aarch64": 271}.get(platform.machine(), 0),
        )

    def connections(self) -> int:
        count = 0
        for listener in self.listeners:
            try:
                connection, _ = listener.accept()
            except BlockingIOError:
                continue
            connection.close()
            count += 1
        return count

    def left_behind(self) -> list[str]:
        found = []
        for process in Path("/proc").iterdir():
            try:
                command_line = (process / "cmdline").read_bytes() if process.name.isdecimal() else b""
            except OSError:
                continue
            if self.nap.encode() in command_line:
                found.append(command_line.replace(b"\0", b" ").decode())
        return found


@pytest.fixture
def world(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(processes, "TERM_GRACE_SECONDS", 0.2)
    outside = workspace.parent
    for name in ("secret.txt", "workspace2/secret.txt", "state/transcript.jsonl", "home/.aws/credentials"):
        (outside / name).parent.mkdir(parents=True, exist_ok=True)
        (outside / name).write_text(SECRET)
    name = f"victim-{random.randrange(10**9)}"
    victim = subprocess.Popen(
        ["bash", "-c", f"exec -a {name} sleep 3600"], env={"PATH": os.environ["PATH"], "API_KEY": KEY}, cwd=outside
    )
    nap = str(random.randrange(10**7, 10**8))
    listeners = [socket.socket(socket.AF_INET), socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)]
    listeners[0].bind(("127.0.0.1", 0))
    here = Path.cwd()
    os.chdir(outside)  # a socket's path may be 107 bytes long at most
    listeners[1].bind("audit.sock")
    os.chdir(here)
    listeners[2].bind(b"\0onrecord-" + nap.encode())
    for listener in listeners:
        listener.setblocking(False)
        listener.listen()
    try:
        yield World(workspace, victim, name, listeners, nap)
    finally:
        for listener in listeners:
            listener.close()
        victim.kill()
        victim.wait()


def tool(sandbox: Sandbox | None, world: World, *, network: bool = False) -> BashTool:
    if isinstance(sandbox, Bubblewrap):
        sandbox = find_sandbox("bubblewrap", hide=[world.workspace.parent / "state"], tmp_bytes=2 * 1024**2)
    hostile = {"PATH": os.environ["PATH"], "HOME": str(world.workspace.parent / "home"), "BASH_ENV": "/dev/tty"}
    keys = ("GATEWAY_OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "HTTPS_PROXY", "LD_AUDIT", "PYTHONPATH", "SSH_AUTH_SOCK")
    return BashTool(
        sandbox, network=network, limits=LIMITS, environment=hostile | dict.fromkeys(keys, KEY), timeout_seconds=5
    )


async def hold(attack: Attack, sandbox: Sandbox | None, world: World) -> None:
    """Runs the attack, and looks at all that it must not have done."""
    before = surroundings(world.workspace)
    result = await run(
        tool(sandbox, world),
        world.workspace,
        command=world.fill(attack.command),
        timeout_seconds=attack.timeout_seconds,
    )
    told = result.text + (result.error or "")
    assert "could not be started" not in told
    assert SECRET not in told
    assert KEY not in told
    assert "BREACH" not in told
    assert surroundings(world.workspace) == before
    assert world.victim.poll() is None
    assert world.connections() == 0
    assert world.left_behind() == []
    assert len(result.text) < 51_000
    if result.error:
        assert attack.command not in result.error
        assert result.exit_code is None


def test_the_suite_is_as_large_as_it_says():
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) >= 60


@pytest.mark.long
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
async def test_a_command_in_the_sandbox_is_held(attack: Attack, jail: Sandbox, world: World):
    if isinstance(jail, Landlock) and not attack.landlock:
        pytest.skip("Landlock does not hold it (docs/security.md)")
    if isinstance(jail, Bubblewrap) and attack.name == "a user namespace" and b"--disable-userns" not in BWRAP_HELP:
        pytest.skip("bubblewrap is older than 0.8 (docs/security.md)")
    if not attack.as_root and os.geteuid() == 0:
        pytest.skip("root owns the machine's devices, in the sandbox too (docs/security.md)")
    await hold(attack, jail, world)


@pytest.mark.long
@pytest.mark.parametrize("attack", [a for a in ATTACKS if a.bare != "not held"], ids=lambda attack: attack.name)
async def test_a_command_without_a_sandbox_is_held_as_far_as_the_docs_say(attack: Attack, world: World):
    if attack.bare == "held unless root" and os.geteuid() == 0:
        pytest.skip("root can raise every limit (docs/security.md)")
    if attack.bare == "held by counting processes" and os.geteuid() == 0 and find_process_groups() is None:
        pytest.skip("root's processes are counted by control groups, and none can be made here (docs/security.md)")
    await hold(attack, None, world)


REAL = (
    *(
        "another process's environment",
        "another process's folder",
        "a file above",
        "a file by its path",
        "a link to a file outside",
        "a second name of a file outside",
    ),
    *("another session's workspace", "the state folder", "the home folder", "a service on this machine"),
    *("a service by its name", "a Unix socket", "an abstract socket", "a file above overwritten"),
    *(
        "a file outside made",
        "a file outside removed",
        "a file outside through a link",
        "a process outside slowed down",
    ),
)


@pytest.mark.skipif(shutil.which("perl") is None, reason="some of these attacks are written in perl")
@pytest.mark.parametrize("attack", [a for a in ATTACKS if a.name in REAL], ids=lambda attack: attack.name)
async def test_an_attack_is_one(attack: Attack, world: World):
    """Without a sandbox it does its harm, so that what holds it in the other tests is the sandbox."""
    with pytest.raises(AssertionError):
        await hold(attack, None, world)


def test_the_docs_name_each_attack_that_is_not_held_without_a_sandbox():
    text = " ".join(DOCS.read_text().split())  # names may be wrapped
    for attack in ATTACKS:
        named = f"`{attack.name}`" in text
        assert named is (attack.bare != "held"), attack.name


def test_the_docs_name_each_attack_that_landlock_does_not_hold():
    section = " ".join(DOCS.read_text().split("## bash in Landlock", 1)[1].split("\n## ")[0].split())
    assert {attack.name for attack in ATTACKS if f"`{attack.name}`" in section} == {
        attack.name for attack in ATTACKS if not attack.landlock
    }


async def test_the_network_can_be_given_back(jail: Sandbox, world: World):
    """GATEWAY_BASH_NETWORK=on: the command reaches what the gateway reaches, and sees no more files than before."""
    bash = tool(jail, world, network=True)
    command = world.fill("exec 3<>/dev/tcp/127.0.0.1/{port} && echo reached; cat {outside}/secret.txt")
    result = await run(bash, world.workspace, command=command)
    assert "reached" in result.text
    assert world.connections() == 1
    assert SECRET not in result.text


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every process's environment (docs/security.md)")
def test_without_a_sandbox_the_gateways_own_environment_is_hidden():
    """Its keys are in it, and a command runs as the same user."""
    program = (
        "import asyncio, pathlib; from gateway_svc.tools.bash import BashTool; from tests.tools.running import run;"
        "print(asyncio.run(run(BashTool(None), pathlib.Path('/tmp'),"
        " command='cat /proc/$PPID/environ /proc/$PPID/mem')).text)"
    )
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), "GATEWAY_OPENAI_API_KEY": KEY}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, check=True, cwd="/")
    assert b"Permission denied" in done.stdout
    assert KEY.encode() not in done.stdout


def test_a_sandbox_that_is_there_is_found(jails: Mapping[str, Sandbox]):
    """So that on a machine where one works, none of these tests is skipped in silence."""
    works = ["bwrap", "--unshare-user", "--unshare-pid", "--ro-bind", "/", "/", "--proc", "/proc", "true"]
    try:
        done = subprocess.run(works, capture_output=True, check=False).returncode == 0
    except OSError:
        done = False
    assert ("bubblewrap" in jails) == done
    assert ("landlock" in jails) == (confine.version() > 0 and platform.machine() in ARCHITECTURES)
    assert find_sandbox("off_as_root") is None
