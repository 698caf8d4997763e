"""Claude's program as a process: nothing of it is left behind, and no output of it is too much."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable

import pytest

from gateway_svc.errors import EngineProtocolError
from tests.engines_claude.stage import Stage, has_run_name, is_running
from tests.support.claude_cli import MODEL, init, message, result, spent

IMPATIENT = pytest.mark.usefixtures("impatient")
ANSWER = [*message("msg_1", "All is well"), result({MODEL: spent(1, 0.00054)})]
INTERRUPTED = [result({}, error=True)]


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe that somebody holds open is not read for long once the program has ended."""
    monkeypatch.setattr("gateway_svc.engines.claude.process.HELD_PIPE_SECONDS", 0.1)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What heeds neither an interrupt nor SIGTERM is not given long."""
    monkeypatch.setattr("gateway_svc.engines.claude.process.INTERRUPT_SECONDS", 0.2)
    monkeypatch.setattr("gateway_svc.engines.claude.process.TERM_SECONDS", 0.2)


async def cancel(stage: Stage, ready: Callable[[], bool]) -> None:
    """Cancels a turn once it is ready, and waits for its end."""
    task = await stage.start(stage.turn(), stage.runner())
    await stage.until(ready)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def processes(stage: Stage) -> list[int]:
    return [*stage.journal("pid"), *stage.journal("spawned")]


async def test_a_program_is_found_by_the_name_of_its_gateways_run(stage):
    stage.play([init(), {"do": "wait"}], on_interrupt=INTERRUPTED)
    await cancel(stage, lambda: any(map(has_run_name, processes(stage))))


async def test_a_cancelled_program_is_asked_to_stop_first(stage):
    """Closing stdin alone would let it finish its work, tools and all."""
    stage.play([init(), {"do": "wait"}], on_interrupt=INTERRUPTED)
    await cancel(stage, lambda: True)
    assert stage.stdin()[-1]["request"] == {"subtype": "interrupt"}
    assert not any(map(is_running, processes(stage)))


@pytest.mark.long
@IMPATIENT
@pytest.mark.parametrize("ignore_term", [False, True])
async def test_one_that_does_not_heed_it_is_ended_by_signals(stage, ignore_term):
    stage.play([init(), {"do": "sleep", "seconds": 60}], ignore_term=ignore_term)
    await cancel(stage, lambda: True)
    (pid,) = processes(stage)
    assert not is_running(pid)


@IMPATIENT
async def test_one_that_cannot_be_told_by_its_environment_is_ended_with_its_group(stage):
    """Programs may write over it, as Node does when it sets its title."""
    stage.play([init(), {"do": "sleep", "seconds": 60}], ignore_term=True, bare=True)
    await cancel(stage, lambda: True)
    (pid,) = processes(stage)
    assert not is_running(pid)


@pytest.mark.long
@IMPATIENT
@pytest.mark.parametrize("options", [{"on_interrupt": INTERRUPTED}, {"ignore_term": True}])
async def test_what_its_tools_started_in_a_session_of_its_own_ends_too(stage, options):
    """It ignores SIGTERM, has left the program's group, and holds the program's stdout open."""
    stage.play([init(), {"do": "spawn"}, {"do": "wait"}], **options)
    await cancel(stage, lambda: len(processes(stage)) == 2)
    await stage.until(lambda: not any(map(is_running, processes(stage))))


@pytest.mark.usefixtures("soon")
async def test_what_was_left_running_behind_an_answer_ends_with_the_turn(stage):
    """It holds stdout open, so that the output would never end by itself."""
    stage.play([init(), {"do": "spawn"}, *ANSWER])
    assert await stage.run() == "STOP_REASON_COMPLETED"
    assert len(processes(stage)) == 2
    assert not any(map(is_running, processes(stage)))


@pytest.mark.long
@pytest.mark.usefixtures("soon")
async def test_a_death_is_noticed_although_somebody_holds_the_output_open(stage):
    """It is out of our reach: it has left the group, and its environment tells nothing."""
    stage.play([init(), {"do": "spawn", "bare": True}, {"do": "kill"}])
    with pytest.raises(EngineProtocolError, match="signal 9 in the middle"):
        await stage.run()
    (holder,) = stage.journal("spawned")
    assert is_running(holder)
    os.kill(holder, signal.SIGKILL)


@IMPATIENT
async def test_cancelling_again_and_again_leaves_nothing_behind(stage):
    """A client that goes away while its turn is being cancelled must not cut the end short."""
    stage.play([init(), {"do": "sleep", "seconds": 60}], ignore_term=True)
    task = await stage.start(stage.turn(), stage.runner())
    while not task.done():
        task.cancel()
        await asyncio.sleep(0.05)
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert not any(map(is_running, processes(stage)))


@IMPATIENT
async def test_one_that_does_not_end_behind_its_answer_is_ended(stage, monkeypatch):
    monkeypatch.setattr("gateway_svc.engines.claude.run.LINGER_SECONDS", 0.2)
    stage.play([init(), *ANSWER], stay=True)
    assert await stage.run() == "STOP_REASON_COMPLETED"
    assert not any(map(is_running, processes(stage)))


async def test_a_line_of_4_megabytes_is_read(stage):
    stage.play([init(), *message("msg_1", "x" * 4_000_000), result({})])
    assert await stage.run() == "STOP_REASON_COMPLETED"
    assert len(stage.text()) == 4_000_000


async def test_a_longer_line_than_is_kept_is_skipped_and_the_rest_read(stage, monkeypatch, capsys):
    monkeypatch.setattr("gateway_svc.engines.claude.process.MAX_LINE_BYTES", 1_000_000)
    stage.play([init(), {"do": "bytes", "bytes": 3_000_000}, *ANSWER])
    assert await stage.run() == "STOP_REASON_COMPLETED"
    assert stage.text() == "All is well"
    assert "too_long" in capsys.readouterr().out


async def test_lines_that_are_no_json_are_skipped_and_told_once(stage, capsys):
    odd = [{"do": "raw", "text": text} for text in ("[SandboxDebug] hello", "", "{", "[1]", "[" * 100_000)]
    stage.play([*odd, init(), *odd, *ANSWER])
    assert await stage.run() == "STOP_REASON_COMPLETED"
    assert stage.text() == "All is well"
    assert capsys.readouterr().out.count("claude.line_skipped") == 1


async def test_a_last_line_without_its_end_is_read(stage):
    stage.play([init(), *message("msg_1", "x"), {"do": "raw", "text": '{"type": "result", "is_error": false}'}])
    assert await stage.run() == "STOP_REASON_COMPLETED"


async def test_much_on_stderr_neither_blocks_it_nor_fills_memory(stage):
    stage.play([{"do": "stderr", "text": "x" * 1_000_000}, init(), *ANSWER])
    assert await stage.run() == "STOP_REASON_COMPLETED"
