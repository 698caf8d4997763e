"""An application as a producer: it only appends, a program of its own sends, and a fork is safe at any moment."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from onrecord.client import AsyncLedger, Ledger
from onrecord.common.v1 import common_pb2

from recording.held_folder import is_free
from recording.producing import courier
from recording.producing.courier import SenderProgram, find_python
from recording.record import open_record
from tests.client.loops import use_in_two_loops
from tests.client.senders import sender_of
from tests.recording.fake_audit import FakeAudit, serving
from tests.support.processes import has_ended

FORKS = """
import os, sys, threading
from onrecord.client import Ledger

ledger = Ledger(sys.argv[1], sys.argv[2], drain_seconds=20)
ledger.__enter__()

def call(count, name):
    for number in range(count):
        with ledger.tool_call(name, {"n": number}):
            pass

busy = threading.Thread(target=call, args=(50, "of-a-thread"))
busy.start()
children = []
for child in range(4):
    call(5, "of-the-parent")
    pid = os.fork()
    if not pid:
        call(25, "of-a-child")
        os._exit(0)
    children.append(pid)
call(5, "of-the-parent")
busy.join()
ended = [os.waitpid(pid, 0)[1] for pid in children]
assert ended == [0] * 4, ended
print(ledger.close())
"""


def run(code: str, *arguments: object, timeout: float = 120) -> str:
    """What a program prints; it must end well, and say nothing else."""
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


async def holds(condition: Callable[[], object]) -> None:
    """Waits until it does."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)


def folders(state_dir: Path) -> list[Path]:
    """The spools that are still there."""
    return [path for path in (state_dir / "spool").iterdir() if (path / "lock").exists()]


@pytest.mark.long
async def test_what_children_and_their_parent_recorded_is_in_the_ledger_once(tmp_path):
    """Four children of a process whose threads record: each is a producer of its own."""
    service = FakeAudit()
    async with serving(service) as target:
        said = await asyncio.to_thread(run, FORKS, tmp_path, target.address)
        assert said == "True\n", "only the application's own words are on stdout"
        await service.until_stored(175)
        await holds(lambda: not folders(tmp_path))
        names = [row.tool_name for row in service.ledger.values()]  # type: ignore[union-attr]
        assert {name: names.count(name) for name in set(names)} == {
            "of-a-child": 100,
            "of-the-parent": 25,
            "of-a-thread": 50,
        }
        assert {row.outcome for row in service.ledger.values()} == {common_pb2.OUTCOME_SUCCEEDED}  # type: ignore[union-attr]
        assert not (tmp_path / "spool" / "quarantine").exists()
        assert len(service.covered) == 5, "a folder for each process"


def test_a_ledger_imports_no_grpc_and_leaves_stdout_alone(tmp_path):
    code = """
import sys
from onrecord.client import Ledger
with Ledger(sys.argv[1], mode="strict") as ledger:
    with ledger.tool_call("lookup"):
        pass
    assert ledger.flush(0) is False
print([name for name in ("grpc", "structlog", "uuid_utils", "cryptography", "pydantic") if name in sys.modules])
"""
    assert run(code, tmp_path) == "[]\n"


@pytest.mark.long
async def test_a_gateway_on_the_same_folder_sends_what_a_ledger_without_a_target_appends(tmp_path):
    """While the application runs, and no program is started."""
    service = FakeAudit()
    async with serving(service) as target:
        record = open_record(tmp_path, target)
        record.start()
        async with AsyncLedger(tmp_path) as ledger:
            with ledger.tool_call("lookup"), ledger.tool_call("inner"):
                pass
            assert await ledger.flush(30)
            with ledger.tool_call("again"):
                pass
            assert await ledger.close()
        await holds(lambda: len(folders(tmp_path)) == 1)
        assert await record.drain(30)
        await record.aclose()
        assert sorted(row.tool_name for row in service.ledger.values()) == ["again", "inner", "lookup"]  # type: ignore[union-attr]
        assert not (tmp_path / "spool" / courier.LOG).exists()


@pytest.mark.long
async def test_the_program_that_sends_ends_when_all_is_sent_and_begins_again_by_need(tmp_path):
    service = FakeAudit()
    program = SenderProgram(tmp_path / "spool", None)
    async with serving(service) as target:
        for count in (1, 2):
            async with AsyncLedger(tmp_path, target.address, drain_seconds=30) as ledger:
                with ledger.tool_call("lookup"):
                    pass
                assert await ledger.flush(30)
                assert program.is_running()
            assert len(service.ledger) == count
            await holds(lambda: not program.is_running() and not folders(tmp_path))


@pytest.mark.long
async def test_a_sender_that_was_killed_is_started_again_while_the_application_runs(tmp_path):
    """And so is one that was killed with rows on their way: they come once."""
    service = FakeAudit()
    async with serving(service) as target:
        async with AsyncLedger(tmp_path, target.address, drain_seconds=30) as ledger:
            for number in range(3):
                with ledger.tool_call("lookup"):
                    pass
                assert await ledger.flush(30)
                started = (tmp_path / "spool" / courier.LOG).read_text().count("sender.started")
                assert started == number + 1
                if number < 2:
                    os.kill(sender_of(tmp_path), 9)
        await holds(lambda: not folders(tmp_path))
    assert len(service.ledger) == 3


@pytest.mark.long
def test_the_program_ends_when_its_folder_is_removed(tmp_path):
    """Rows that could not be sent are gone with it, and no process stays behind."""
    with Ledger(tmp_path / "app", "127.0.0.1:1", drain_seconds=0.1) as ledger, ledger.tool_call("lookup"):
        pass
    sender = sender_of(tmp_path / "app")
    wait_until(lambda: "spool.adopted" in (tmp_path / "app/spool" / courier.LOG).read_text())
    # As an operator removes it: the program still writes there, and `rm` does not mind a file that went by itself.
    remove = ["rm", "-rf", tmp_path / "app"]
    wait_until(lambda: subprocess.run(remove, check=False, capture_output=True).returncode == 0)
    wait_until(lambda: has_ended(sender))


def wait_until(condition: Callable[[], object]) -> None:
    """As holds(), without a loop."""
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.long
async def test_the_program_is_run_by_hand_for_a_folder_to_which_others_only_append(tmp_path):
    service = FakeAudit()
    with Ledger(tmp_path) as ledger, ledger.tool_call("lookup"):
        pass
    async with serving(service) as target:
        command = [sys.executable, "-m", "recording.following.program", tmp_path, target.address, "--until-sent"]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert len(service.ledger) == 1
    assert not folders(tmp_path)


@pytest.mark.long
def test_a_body_that_forks_is_one_call_of_the_parent(tmp_path):
    code = """
import os, sys
from onrecord.client import Ledger
with Ledger(sys.argv[1]) as ledger, ledger.tool_call("lookup"):
    pid = os.fork()
if pid:
    assert os.waitpid(pid, 0)[1] == 0
"""
    run(code, tmp_path)
    (folder,) = folders(tmp_path)
    assert folder.joinpath("00000000000000000001.segment").read_bytes().count(b"\xffrec") == 2, "an intent and a row"


@pytest.mark.long
def test_a_fork_of_which_python_is_not_told_is_noticed(tmp_path):
    """A server in C forks by itself (uWSGI), and no handler of os.register_at_fork runs."""
    code = """
import ctypes, os, sys, threading, time
from onrecord.client import Ledger
ledger = Ledger(sys.argv[1], drain_seconds=0).open()
with ledger.tool_call("of-the-parent"):
    pass
while threading.active_count() > 1:  # such a fork beside a thread that wants the GIL breaks CPython itself
    time.sleep(0.01)
pids = []
for does in ("records", "records", "closes"):
    pids.append(ctypes.PyDLL(None).fork())
    if not pids[-1]:
        if does == "records":
            with ledger.tool_call("of-a-child"):
                pass
        ledger.close()
        os._exit(0)
assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 3
with ledger.tool_call("of-the-parent"):
    pass
"""
    run(code, tmp_path)
    names = sorted((folder / "00000000000000000001.segment").read_bytes().count(b"of-") for folder in folders(tmp_path))
    assert names == [2, 2, 4], "an intent and a row of each call, in the folder of its process"


@pytest.mark.long
def test_a_fork_finds_no_thread_of_ours(tmp_path):
    """Python warns of a fork beside threads from 3.12 on, and the child would have none of them."""
    code = """
import os, sys
from onrecord.client import Ledger
with Ledger(sys.argv[1]) as ledger:
    with ledger.tool_call("lookup"):
        pass
    keeper = ledger._producer.spool._keeper
    assert keeper._thread is not None
    pid = os.fork()
    if not pid:
        os._exit(keeper._thread is not None)
    assert os.waitpid(pid, 0)[1] == 0
"""
    run(code, tmp_path)


def test_a_child_lets_go_of_its_parent_s_folder(tmp_path):
    """Its lock would keep a dead parent's folder from being sent for as long as the child lives."""
    code = """
import os, sys, time
from onrecord.client import Ledger
ledger = Ledger(sys.argv[1]).open()
with ledger.tool_call("lookup"):
    pass
if os.fork():
    os._exit(0)
while not os.path.exists(sys.argv[2]):
    time.sleep(0.01)
with ledger.tool_call("of-the-child"):
    pass
os._exit(0)
"""
    state, go = tmp_path / "state", tmp_path / "go"
    command = [sys.executable, "-c", code, str(state), str(go)]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True, timeout=60)
    try:
        [of_parent] = folders(state)
        wait_until(lambda: is_free(of_parent))  # and the child lives
    finally:
        go.touch()
    wait_until(lambda: len(folders(state)) == 2 and all(map(is_free, folders(state))))


def test_after_its_end_a_ledger_says_so_and_can_be_opened_again(tmp_path):
    ledger = Ledger(tmp_path)
    with pytest.raises(RuntimeError, match="not open"):
        ledger.flush()
    assert ledger.open() is ledger
    call = ledger.tool_call("late")
    assert ledger.close()
    with pytest.raises(RuntimeError, match=r"closed: open\(\) it again"):
        ledger.tool_call("lookup")
    with call:  # nothing fails for its body
        pass
    with ledger.open().tool_call("lookup"):
        pass
    assert not ledger.close()


@pytest.mark.long
async def test_a_program_that_closes_nothing_waits_for_a_moment_at_its_end(tmp_path):
    service = FakeAudit()
    code = """
import sys
from onrecord.client import Ledger
ledger = Ledger(sys.argv[1], sys.argv[2]).open()
with ledger.tool_call("lookup"):
    pass
"""
    async with serving(service) as target:
        await asyncio.to_thread(run, code, tmp_path, target.address)
        await service.until_stored(1)
        await holds(lambda: not folders(tmp_path))


def test_a_server_with_python_in_it_is_not_taken_for_python(monkeypatch):
    """sys.executable is the server's own program under uWSGI."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    monkeypatch.setattr(sys, "_base_executable", "/bin/false", raising=False)
    found = find_python()
    said = subprocess.run([found, "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == sys.prefix


async def test_what_is_made_outside_of_a_loop_is_used_in_one_after_another(tmp_path):
    await asyncio.to_thread(use_in_two_loops, tmp_path)
